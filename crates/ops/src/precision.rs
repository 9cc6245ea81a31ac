use std::sync::atomic::{AtomicBool, Ordering};

use burn::tensor::{DType, Tensor};

static BF16: AtomicBool = AtomicBool::new(false);

/// Whether the matrix products of [`linear`](crate::linear()),
/// [`low_rank_linear`](crate::low_rank_linear) and [`attention`](crate::attention()) in this process,
/// outside of the kernels for `flex`, round their factors to bfloat16, 7 bits behind the point, and add
/// up in float32. Weights, gradients, moments and everything between the products stay float32.
///
/// Otherwise, and in any other product, burn computes in float32, which on a GPU with tensor cores is
/// TF32, 10 bits: those of [`multiply`](crate::multiply) (a fusion's keys and values, a masked language
/// model's decoder), and those of layers that call burn's own `Linear` (a masked language model's
/// transform, AdapterHub's classification head, an invertible adapter, and what DoRA adds to LoRA).
pub fn set_bf16_products(on: bool) {
    BF16.store(on, Ordering::Relaxed);
}

/// A matrix product in the precision chosen.
pub(crate) fn product<const D: usize>(left: Tensor<D>, right: Tensor<D>) -> Tensor<D> {
    if BF16.load(Ordering::Relaxed) { bf16(left, right) } else { left.matmul(right) }
}

fn bf16<const D: usize>(left: Tensor<D>, right: Tensor<D>) -> Tensor<D> {
    left.cast(DType::BF16).matmul(right.cast(DType::BF16)).cast(DType::F32)
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tolerance};

    use super::*;
    use crate::extension::tests::random;

    /// Values and gradients are those of float32 to bfloat16's 8 bits, and float32 themselves.
    #[test]
    fn products_in_bfloat16_are_near_those_in_float32() {
        let device = Device::flex().autodiff();
        let run = |multiply: fn(Tensor<2>, Tensor<2>) -> Tensor<2>| {
            let [left, right] = [random([5, 48], 1.0, 1), random([48, 3], 1.0, 2)]
                .map(|data| Tensor::<2>::from_data(data, &device).require_grad());
            let output = multiply(left.clone(), right.clone());
            let gradients = output.clone().square().sum().backward();
            [
                output,
                Tensor::from_inner(left.grad(&gradients).expect("it is tracked")),
                Tensor::from_inner(right.grad(&gradients).expect("it is tracked")),
            ]
            .map(Tensor::into_data)
        };
        let (rounded, exact) = (run(bf16), run(Tensor::matmul));
        for (rounded, exact) in rounded.iter().zip(&exact) {
            assert_eq!(rounded.dtype(), DType::F32);
            assert_ne!(rounded, exact, "nothing was rounded");
            let near = Tolerance::<f32>::default().set_relative(0.02).set_absolute(0.08);
            rounded.assert_approx_eq::<f32>(exact, near);
        }
    }
}
