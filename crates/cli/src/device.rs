use anyhow::Result;
use burn::tensor::Device;
#[cfg(feature = "cuda")]
use burn::tensor::DeviceType;

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
        DeviceChoice::Auto => Ok(cuda(0).unwrap_or_else(|_| cpu())),
        DeviceChoice::Cuda(index) => cuda(index),
    }
}

fn cpu() -> NamedDevice {
    let threads = rayon::current_num_threads();
    NamedDevice { device: Device::flex(), name: format!("CPU, {threads} threads (burn-flex)") }
}

#[cfg(feature = "cuda")]
fn cuda(index: usize) -> Result<NamedDevice> {
    // burn panics in the first operation on a GPU that is not there; the first is left to it, which
    // says why there is none.
    let found = if index == 0 { 1 } else { Device::enumerate(DeviceType::Cuda).into_vec().len() };
    anyhow::ensure!(
        index < found,
        "`--device cuda:{index}`: expected an index below {found}, the number of GPUs here"
    );
    let name = format!("CUDA GPU {index} (burn-cuda)");
    Ok(NamedDevice { device: Device::cuda(index), name })
}

#[cfg(not(feature = "cuda"))]
fn cuda(_: usize) -> Result<NamedDevice> {
    anyhow::bail!(
        "this program was built without CUDA; build it with `--features cuda`, or let \
         `cargo xtask train --device cuda` do so"
    )
}
