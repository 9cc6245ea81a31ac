use std::f32::consts::FRAC_1_SQRT_2;
use std::f64;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, unary};
use burn::backend::{Dispatch, Flex};
use burn::tensor::Tensor;
use burn_flex::FlexTensor;
use multiversion::multiversion;

use crate::extension::FlexKernels;
use crate::math::{erf, exp};
use crate::parallel;
use crate::storage::{Elements, has_kernel, update};

/// `x · Φ(x) = x · ½ (1 + erf(x / √2))`: GELU, exactly, and so is its gradient
/// `Φ(x) + x · e^(-x²/2) / √(2π)`.
///
/// Deviation: the gradient of burn's own `gelu` is that of the tanh approximation on every CubeCL
/// backend.
pub fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    if has_kernel(&x) {
        Tensor::from_dispatch(<Dispatch as FlexKernels>::gelu(x.into_dispatch()))
    } else {
        composed(x)
    }
}

fn composed<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    let cdf = ((x.clone() * f64::consts::FRAC_1_SQRT_2).erf() + 1.0) * 0.5;
    x * cdf
}

pub(crate) fn forward(x: FlexTensor) -> FlexTensor {
    update(x, |x| parallel::blocks(x, |_, x| forward_block(x)))
}

#[multiversion(targets("x86_64+avx512f+avx512dq", "x86_64+avx2"))]
fn forward_block(x: &mut [f32]) {
    for x in x {
        *x *= 0.5 * (1.0 + erf(*x * FRAC_1_SQRT_2));
    }
}

#[derive(Debug)]
pub(crate) struct GeluBackward;

impl Backward<Flex, 1> for GeluBackward {
    type State = FlexTensor;

    fn backward(self, ops: Ops<FlexTensor, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let x = Elements::of(ops.state);
        unary::<Flex, _>(ops.parents, ops.node, gradients, |gradient| {
            update(gradient, |gradient| backward(gradient, x.floats()))
        });
    }
}

/// Multiplies the gradient of the output by the derivative at `x`.
fn backward(gradient: &mut [f32], x: &[f32]) {
    parallel::blocks(gradient, |first, gradient| backward_block(gradient, &x[first..]));
}

#[multiversion(targets("x86_64+avx512f+avx512dq", "x86_64+avx2"))]
fn backward_block(gradient: &mut [f32], x: &[f32]) {
    const FRAC_1_SQRT_2_PI: f32 = 0.398_942_3;
    for (gradient, &x) in gradient.iter_mut().zip(x) {
        let cdf = 0.5 * (1.0 + erf(x * FRAC_1_SQRT_2));
        *gradient *= cdf + x * (FRAC_1_SQRT_2_PI * exp(-0.5 * x * x));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extension::tests::{check_gradients, random};

    #[test]
    fn the_kernel_is_the_composition() {
        let x = random([37, 1031], 3.0, 1);
        check_gradients(
            &[x],
            |inputs| gelu(inputs[0].clone()),
            |inputs| composed(inputs[0].clone()),
        );
    }
}
