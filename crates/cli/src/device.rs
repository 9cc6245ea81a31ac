use std::ffi::OsStr;
use std::io::Write as _;

use anyhow::Result;
use burn::tensor::Device;
#[cfg(feature = "cuda")]
use burn::tensor::DeviceType;
#[cfg(feature = "cuda")]
use nsmc_experiment::CUDA_GPU;
use nsmc_experiment::gpus;

use crate::args::DeviceChoice;
#[cfg(feature = "cuda")]
use crate::corpus::cache_folder;

/// A device and what to call it.
pub(crate) struct NamedDevice {
    pub(crate) device: Device,
    pub(crate) name: String,
}

impl NamedDevice {
    /// How many GPUs it is, as [`nsmc_experiment::RunRecord::gpus`].
    pub(crate) fn gpus(&self) -> usize {
        gpus(&self.name)
    }
}

/// The one place where a backend is chosen.
pub(crate) fn choose(choice: DeviceChoice) -> Result<NamedDevice> {
    match choice {
        DeviceChoice::Cpu => cpu(),
        DeviceChoice::Auto => cuda(0).or_else(|error| {
            if cfg!(feature = "cuda") {
                // A run's log is not open yet, and its record names the device.
                let _ = writeln!(std::io::stderr(), "warning: computing on the CPU: {error:#}");
            }
            cpu()
        }),
        DeviceChoice::Cuda(index) => cuda(index),
    }
}

/// The devices that share a run's batches: the GPUs in `several` or, if there are none, one device.
pub(crate) fn choose_several(
    one: DeviceChoice,
    several: &[DeviceChoice],
) -> Result<(NamedDevice, Vec<Device>)> {
    let Some((first, further)) = several.split_first() else {
        return Ok((choose(one)?, Vec::new()));
    };
    for (place, choice) in several.iter().enumerate() {
        anyhow::ensure!(
            matches!(choice, DeviceChoice::Cuda(_)),
            "`--devices`: expected GPUs, as cuda:0,cuda:1; a CPU is one device, whose cores share \
             every batch anyway"
        );
        anyhow::ensure!(
            !several[..place].contains(choice),
            "`--devices`: a GPU stands there twice: {choice}"
        );
    }
    let mut first = choose(*first)?;
    let mut devices = Vec::with_capacity(further.len());
    for choice in further {
        let NamedDevice { device, name } = choose(*choice)?;
        first.name.push_str(" + ");
        first.name.push_str(&name);
        devices.push(device);
    }
    Ok((first, devices))
}

fn cpu() -> Result<NamedDevice> {
    nsmc_training::set_amx(wants_amx(std::env::var_os("NSMC_AMX").as_deref())?);
    let threads = rayon::current_num_threads();
    let unit = if nsmc_training::has_amx() { ", AMX" } else { "" };
    let name = format!("CPU, {threads} threads{unit} (burn-flex)");
    Ok(NamedDevice { device: Device::flex(), name })
}

/// Whether the processor's matrix unit may be used where there is one. Products are those of float32
/// either way, but their last bits differ.
fn wants_amx(variable: Option<&OsStr>) -> Result<bool> {
    match variable.map(OsStr::as_encoded_bytes) {
        None | Some(b"1") => Ok(true),
        Some(b"0") => Ok(false),
        Some(_) => anyhow::bail!(
            "`NSMC_AMX`: expected 0, which leaves the processor's matrix unit alone, or 1, the default, \
             which uses it where there is one"
        ),
    }
}

#[cfg(feature = "cuda")]
fn cuda(index: usize) -> Result<NamedDevice> {
    keep_kernels();
    let found = Device::enumerate(DeviceType::Cuda).into_vec().len();
    anyhow::ensure!(
        found > 0,
        "`--device cuda`: no CUDA GPU was found; is NVIDIA's driver (libcuda) installed?"
    );
    anyhow::ensure!(
        index < found,
        "`--device cuda:{index}`: expected an index below {found}, the number of GPUs here"
    );
    let device = Device::cuda(index);
    let model =
        device.identity().map_or_else(String::new, |identity| format!(", {}", identity.name));
    let name = format!("{CUDA_GPU} {index}{model} (burn-cuda)");
    Ok(NamedDevice { device, name })
}

/// Keeps compiled kernels and what was found to be the fastest of them in the user's cache folder, for
/// the next run. A `cubecl.toml` beside or above the working directory goes first. Must come before
/// the first word with a device.
///
/// Candidates are timed for fewer shapes than by default, which `CUBECL_AUTOTUNE_LEVEL=balanced` brings
/// back: on an H200, the products that are chosen without any timing made full fine-tuning no slower.
#[cfg(feature = "cuda")]
fn keep_kernels() {
    use cubecl::config::autotune::AutotuneLevel;
    use cubecl::config::cache::CacheConfig;
    use cubecl::config::{CubeClRuntimeConfig, RuntimeConfig};

    let mut config = CubeClRuntimeConfig::from_current_dir();
    if matches!(config.autotune.level, AutotuneLevel::Balanced) {
        config.autotune.level = AutotuneLevel::Minimal;
    }
    let mut config = config.override_from_env();
    config.compilation.cache = true;
    if matches!(config.environment.path, CacheConfig::Target) {
        config.environment.path = CacheConfig::Directory(cache_folder().join("kernels"));
    }
    if cfg!(feature = "cuda-cpp") {
        config.environment.name.push_str("-cpp");
    }
    CubeClRuntimeConfig::try_set(config);
}

#[cfg(not(feature = "cuda"))]
fn cuda(_: usize) -> Result<NamedDevice> {
    anyhow::bail!(
        "this program was built without CUDA; build it with `--features cuda`, or let \
         `cargo xtask train --device cuda` do so"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_matrix_unit_is_used_unless_it_is_left_alone() {
        let wants = |value: &str| wants_amx(Some(OsStr::new(value)));
        assert!(wants_amx(None).unwrap() && wants("1").unwrap() && !wants("0").unwrap());
        for value in ["", "off", "00"] {
            assert!(wants(value).unwrap_err().to_string().contains("expected 0"), "{value}");
        }
    }

    #[test]
    fn batches_are_shared_by_different_gpus() {
        let error = |several: &[DeviceChoice]| {
            let chosen = choose_several(DeviceChoice::Auto, several);
            format!("{:#}", chosen.err().expect("it is refused"))
        };
        let (one, further) = choose_several(DeviceChoice::Cpu, &[]).expect("a CPU is there");
        assert!(one.name.starts_with("CPU") && further.is_empty());
        let cpu = error(&[DeviceChoice::Cuda(0), DeviceChoice::Cpu]);
        assert!(cpu.contains("expected GPUs, as cuda:0,cuda:1"), "{cpu}");
        let twice = error(&[DeviceChoice::Cuda(1), DeviceChoice::Cuda(0), DeviceChoice::Cuda(1)]);
        assert!(twice.contains("twice: cuda:1"), "{twice}");
    }
}
