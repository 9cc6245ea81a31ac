use burn::tensor::Device;
use nsmc_experiment::Precision;
use nsmc_ops::{is_cpu, set_bf16_products};

use crate::TrainingError;

/// Sets the precision to which the matrix products of this process round their factors. It is to be
/// set before the first of them.
///
/// # Errors
///
/// [`TrainingError::NoBf16`] for bfloat16 on a CPU.
pub fn set_precision(precision: Precision, device: &Device) -> Result<(), TrainingError> {
    let bf16 = precision == Precision::Bf16;
    if bf16 && is_cpu(device) {
        return Err(TrainingError::NoBf16);
    }
    set_bf16_products(bf16);
    Ok(())
}
