use burn::tensor::Device;
use nsmc_experiment::Precision;
use nsmc_ops::set_bf16_products;

use crate::TrainingError;

/// Chooses in what this process's matrix products round their factors, before its first.
pub fn set_precision(precision: Precision, device: &Device) -> Result<(), TrainingError> {
    let bf16 = precision == Precision::Bf16;
    if bf16 && device.clone().inner() == Device::flex() {
        return Err(TrainingError::NoBf16);
    }
    set_bf16_products(bf16);
    Ok(())
}
