use std::sync::atomic::{AtomicBool, Ordering};

use burn::tensor::{DType, Tensor};

/// In what matrix products round their factors, on a GPU. Weights, gradients, moments and everything
/// between the products are float32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// As burn does it for float32: on a GPU with tensor cores in TF32, 10 bits behind the point.
    #[default]
    Float32,
    /// In bfloat16, 7 bits behind the point; products are added up in float32.
    Bf16,
}

static BF16: AtomicBool = AtomicBool::new(false);

/// Chooses the precision for the whole process, before its first product.
pub fn set_precision(precision: Precision) {
    BF16.store(precision == Precision::Bf16, Ordering::Relaxed);
}

/// A matrix product in the precision chosen.
pub(crate) fn product<const D: usize>(left: Tensor<D>, right: Tensor<D>) -> Tensor<D> {
    if BF16.load(Ordering::Relaxed) {
        left.cast(DType::BF16).matmul(right.cast(DType::BF16)).cast(DType::F32)
    } else {
        left.matmul(right)
    }
}
