use burn::tensor::Device;
use nsmc_experiment::Precision;

use crate::TrainingError;

/// Chooses in what this process's matrix products round their factors, before its first.
pub fn set_precision(precision: Precision, device: &Device) -> Result<(), TrainingError> {
    let chosen = match precision {
        Precision::Float32 => nsmc_ops::Precision::Float32,
        Precision::Bf16 if device.clone().inner() == Device::flex() => {
            return Err(TrainingError::NoBf16);
        }
        Precision::Bf16 => nsmc_ops::Precision::Bf16,
    };
    nsmc_ops::set_precision(chosen);
    Ok(())
}
