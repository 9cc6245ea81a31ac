use anyhow::Result;
use burn::tensor::Device;

use crate::args::DeviceChoice;

/// A device and what to call it.
pub(crate) struct NamedDevice {
    pub(crate) device: Device,
    pub(crate) name: String,
}

/// The one place where a backend is chosen.
pub(crate) fn choose(choice: DeviceChoice) -> Result<NamedDevice> {
    match choice {
        DeviceChoice::Cpu => Ok(cpu()),
        DeviceChoice::Auto => Ok(cuda().unwrap_or_else(|_| cpu())),
        DeviceChoice::Cuda => cuda(),
    }
}

fn cpu() -> NamedDevice {
    let threads = rayon::current_num_threads();
    NamedDevice { device: Device::flex(), name: format!("CPU, {threads} threads (burn-flex)") }
}

#[cfg(feature = "cuda")]
#[expect(clippy::unnecessary_wraps, reason = "the build without CUDA fails")]
fn cuda() -> Result<NamedDevice> {
    Ok(NamedDevice { device: Device::cuda(0), name: "CUDA GPU 0 (burn-cuda)".into() })
}

#[cfg(not(feature = "cuda"))]
fn cuda() -> Result<NamedDevice> {
    anyhow::bail!(
        "this program was built without CUDA; build it with `--features cuda`, or let \
         `cargo xtask train --device cuda` do so"
    )
}
