use burn::backend::Flex;
use burn::tensor::Tensor;
use multiversion::multiversion;
use rayon::prelude::*;

use crate::math::sum;
use crate::parallel;
use crate::storage::{Elements, has_kernel, update};

/// `Σ x²`, of a tensor without a gradient of its own.
///
/// # Shapes
/// - x: any
/// - output: `[1]`
///
/// # Panics
///
/// On `flex`, if the tensor records gradients.
pub fn sum_of_squares<const D: usize>(x: Tensor<D>) -> Tensor<1> {
    if !has_kernel(&x) {
        return x.square().sum();
    }
    let device = x.device();
    let x = x.try_into_primitive::<Flex>().expect("a tensor of `flex` without autodiff");
    let x = Elements::of(x);
    let partial: Vec<f64> = x
        .floats()
        .par_chunks(parallel::BLOCK)
        .map(|block| f64::from(sum_of_block(block)))
        .collect();
    Tensor::from_floats([partial.iter().sum::<f64>() as f32], &device)
}

#[multiversion(targets("x86_64+avx512f+avx512dq", "x86_64+avx2"))]
fn sum_of_block(x: &[f32]) -> f32 {
    sum(x, |value| value * value)
}

/// `x · factor`, of a tensor without a gradient of its own.
///
/// # Shapes
/// - x, output: any
/// - factor: `[1]`
///
/// # Panics
///
/// On `flex`, if the tensor records gradients.
pub fn scale<const D: usize>(x: Tensor<D>, factor: Tensor<1>) -> Tensor<D> {
    if !has_kernel(&x) {
        return x * factor.reshape([1; D]);
    }
    let factor: f32 = factor.into_scalar();
    #[expect(clippy::float_cmp, reason = "exactly 1 changes nothing")]
    if factor == 1.0 {
        return x;
    }
    let x = x.try_into_primitive::<Flex>().expect("a tensor of `flex` without autodiff");
    let x = update(x, |x| {
        parallel::blocks(x, |_, x| scale_block(x, factor));
    });
    Tensor::from_primitive::<Flex>(x)
}

#[multiversion(targets("x86_64+avx512f+avx512dq", "x86_64+avx2"))]
fn scale_block(x: &mut [f32], factor: f32) {
    for value in x {
        *value *= factor;
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData};

    use super::*;
    use crate::extension::tests::random;

    #[test]
    fn sums_and_products_are_those_of_burn() {
        let data = random([301, 257], 2.0, 8);
        let device = Device::flex();
        let x = Tensor::<2>::from_data(data.clone(), &device);
        let expected: f64 = data.iter::<f64>().map(|value| value * value).sum();
        let found: f32 = sum_of_squares(x.clone()).into_scalar();
        assert!((f64::from(found) / expected - 1.0).abs() < 1e-6, "{found}, {expected}");
        for factor in [0.37, 1.0] {
            let factor = Tensor::<1>::from_floats([factor], &device);
            let expected: TensorData = (x.clone() * factor.clone().reshape([1, 1])).into_data();
            scale(x.clone(), factor).into_data().assert_eq(&expected, true);
        }
        // The tensor itself is another's, and stays as it was.
        x.into_data().assert_eq(&data, true);
    }
}
