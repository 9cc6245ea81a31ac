use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops};
use burn::backend::{Dispatch, Flex};
use burn::module::{Initializer, Module, Param};
use burn::tensor::{Device, Tensor};
use burn_flex::FlexTensor;
use multiversion::multiversion;
use rayon::prelude::*;

use crate::extension::FlexKernels;
use crate::linear::{bias_gradient, of_each_part, parts};
use crate::math::{add, add_product, sum, sum2};
use crate::parallel;
use crate::storage::{Elements, has_kernel, new, rows_and_width, update};

/// Layer normalisation of rows: `γ (x - mean(x)) / √(var(x) + ε) + β` with the biased variance.
///
/// burn's own does not tell its ε. The name is the same, for burn's checkpoint adapters go by it.
#[derive(Module, Debug)]
pub struct LayerNorm {
    /// γ, the weight.
    pub gamma: Param<Tensor<1>>,
    /// β, the bias.
    pub beta: Param<Tensor<1>>,
    epsilon: f64,
}

impl LayerNorm {
    /// A layer that begins with weight 1 and bias 0.
    pub fn new(width: usize, epsilon: f64, device: &Device) -> Self {
        Self {
            gamma: Initializer::Ones.init([width], device),
            beta: Initializer::Zeros.init([width], device),
            epsilon,
        }
    }

    /// `γ (x - mean(x)) / √(var(x) + ε) + β`, row by row.
    ///
    /// # Shapes
    /// - x, output: `[rows, width]`
    ///
    /// # Panics
    ///
    /// If rows are not as wide as the layer.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        layer_norm(x, self.gamma.val(), self.beta.val(), self.epsilon)
    }

    /// The same of `x + residual`: the end of a sub-layer of BERT.
    ///
    /// # Shapes
    /// - x, residual, output: `[rows, width]`
    ///
    /// # Panics
    ///
    /// If rows are not as wide as the layer, or the two are not of one shape.
    pub fn forward_sum(&self, x: Tensor<2>, residual: Tensor<2>) -> Tensor<2> {
        add_layer_norm(x, residual, self.gamma.val(), self.beta.val(), self.epsilon)
    }
}

fn layer_norm(x: Tensor<2>, gamma: Tensor<1>, beta: Tensor<1>, epsilon: f64) -> Tensor<2> {
    if !has_kernel(&x) {
        return composed(x, gamma, beta, epsilon);
    }
    let output = <Dispatch as FlexKernels>::layer_norm(
        x.into_dispatch(),
        gamma.into_dispatch(),
        beta.into_dispatch(),
        epsilon,
    );
    Tensor::from_dispatch(output)
}

fn add_layer_norm(
    x: Tensor<2>,
    residual: Tensor<2>,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    epsilon: f64,
) -> Tensor<2> {
    assert_eq!(residual.dims(), x.dims(), "a residual of the input's shape");
    if !has_kernel(&x) {
        return composed(x + residual, gamma, beta, epsilon);
    }
    let output = <Dispatch as FlexKernels>::add_layer_norm(
        x.into_dispatch(),
        residual.into_dispatch(),
        gamma.into_dispatch(),
        beta.into_dispatch(),
        epsilon,
    );
    Tensor::from_dispatch(output)
}

fn composed(x: Tensor<2>, gamma: Tensor<1>, beta: Tensor<1>, epsilon: f64) -> Tensor<2> {
    let parts = parts(x.dims()[0]);
    composed_in_parts(x, gamma, beta, epsilon, parts)
}

fn composed_in_parts(
    x: Tensor<2>,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    epsilon: f64,
    parts: usize,
) -> Tensor<2> {
    let (variance, mean) = x.clone().var_mean_bias(1);
    let normalized = (x - mean) / (variance + epsilon).sqrt();
    if parts == 1 {
        return normalized * gamma.unsqueeze() + beta.unsqueeze();
    }
    let [rows, width] = normalized.dims();
    let normalized = normalized.reshape([parts, rows / parts, width]);
    let output = normalized * of_each_part(gamma, parts) + of_each_part(beta, parts);
    output.reshape([rows, width])
}

/// What the gradient needs.
#[derive(Clone, Debug)]
pub(crate) struct Saved {
    /// `(x - mean) / √(var + ε)`, row by row, in blocks of [`parallel::block_rows`].
    normalized: Vec<Vec<f32>>,
    /// `1 / √(var + ε)` of each row.
    scale: Vec<f32>,
}

/// A forward pass.
pub(crate) struct Normalized {
    pub(crate) output: FlexTensor,
    pub(crate) saved: Option<Saved>,
}

impl Normalized {
    pub(crate) fn of(
        x: FlexTensor,
        residual: Option<FlexTensor>,
        gamma: &FlexTensor,
        beta: &FlexTensor,
        epsilon: f64,
        save: bool,
    ) -> Self {
        let (rows, width) = rows_and_width(&x);
        let residual = residual.map(Elements::of);
        let (gamma, beta) = (Elements::of(gamma.clone()), Elements::of(beta.clone()));
        let (gamma, beta) = (gamma.floats(), beta.floats());
        assert_eq!([gamma.len(), beta.len()], [width; 2], "one weight and one bias per column");
        if let Some(residual) = &residual {
            assert_eq!(residual.floats().len(), rows * width, "a residual of the input's shape");
        }
        let mut scale = vec![0.0; rows];
        let mut normalized = Vec::new();
        let output = update(x, |output| {
            let block = parallel::block_rows(width);
            let blocks = output.par_chunks_mut(block * width).zip(scale.par_chunks_mut(block));
            let kept = blocks.enumerate().map(|(index, (output, scale))| {
                let first = index * block * width;
                let mut kept = Vec::with_capacity(if save { output.len() } else { 0 });
                for (row, output) in output.chunks_exact_mut(width).enumerate() {
                    let at = first + row * width;
                    if let Some(residual) = &residual {
                        add(output, &residual.floats()[at..at + width]);
                    }
                    scale[row] = normalize(output, epsilon);
                    if save {
                        kept.extend_from_slice(output);
                    }
                    transform(output, gamma, beta);
                }
                kept
            });
            kept.collect_into_vec(&mut normalized);
        });
        let saved = save.then_some(Saved { normalized, scale });
        Self { output, saved }
    }
}

/// Normalises a row; returns `1 / √(var + ε)`.
#[multiversion(targets("x86_64+avx512f+avx512dq", "x86_64+avx2"))]
fn normalize(row: &mut [f32], epsilon: f64) -> f32 {
    let width = row.len() as f32;
    let mean = sum(row, |value| value) / width;
    for value in row.iter_mut() {
        *value -= mean;
    }
    let variance = sum(row, |value| value * value) / width;
    let scale = (f64::from(variance) + epsilon).sqrt().recip() as f32;
    for value in row {
        *value *= scale;
    }
    scale
}

#[multiversion(targets("x86_64+avx512f+avx512dq", "x86_64+avx2"))]
fn transform(row: &mut [f32], gamma: &[f32], beta: &[f32]) {
    for ((value, gamma), beta) in row.iter_mut().zip(gamma).zip(beta) {
        *value = *value * gamma + beta;
    }
}

/// Parents: x, gamma, beta, and the residual if there is one.
#[derive(Debug)]
pub(crate) struct LayerNormBackward;

impl<const N: usize> Backward<Flex, N> for LayerNormBackward {
    type State = (Saved, FlexTensor);

    fn backward(self, ops: Ops<Self::State, N>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<Flex>(&ops.node);
        let (saved, gamma) = ops.state;
        let (rows, width) = rows_and_width(&gradient);
        if let Some(node) = &ops.parents[1] {
            let gradient = Elements::of(gradient.clone());
            let sums = parallel::sum_rows(rows, width, |first, count, sums| {
                let rows = gradient.floats()[first * width..][..count * width].chunks_exact(width);
                let normalized = &saved.normalized[first / parallel::block_rows(width)];
                for (row, normalized) in rows.zip(normalized.chunks_exact(width)) {
                    add_product(sums, row, normalized);
                }
            });
            gradients.register::<Flex>(node.id, new(sums, [width]));
        }
        if let Some(node) = &ops.parents[2] {
            gradients.register::<Flex>(node.id, bias_gradient(&gradient));
        }
        let inputs: Vec<_> = ops
            .parents
            .iter()
            .enumerate()
            .filter(|(index, _)| *index == 0 || *index == 3)
            .collect();
        if inputs.iter().all(|(_, node)| node.is_none()) {
            return;
        }
        let gamma = Elements::of(gamma);
        let gradient = update(gradient, |gradient| {
            parallel::row_blocks(gradient, width, |first, rows| {
                let normalized = &saved.normalized[first / parallel::block_rows(width)];
                let rows = rows.chunks_exact_mut(width).zip(normalized.chunks_exact(width));
                for ((gradient, normalized), scale) in rows.zip(&saved.scale[first..]) {
                    input_gradient(gradient, normalized, gamma.floats(), *scale);
                }
            });
        });
        for (_, node) in inputs {
            if let Some(node) = node {
                gradients.register::<Flex>(node.id, gradient.clone());
            }
        }
    }
}

/// With `g = γ · gradient` and `n` the normalised row: `scale (g - mean(g) - n mean(g n))`.
#[multiversion(targets("x86_64+avx512f+avx512dq", "x86_64+avx2"))]
fn input_gradient(gradient: &mut [f32], normalized: &[f32], gamma: &[f32], scale: f32) {
    let width = gradient.len() as f32;
    gradient.iter_mut().zip(gamma).for_each(|(gradient, gamma)| *gradient *= gamma);
    let mean = sum(gradient, |gradient| gradient) / width;
    let projection = sum2(gradient, normalized, |gradient, n| gradient * n) / width;
    for (gradient, n) in gradient.iter_mut().zip(normalized) {
        *gradient = scale * (*gradient - mean - n * projection);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extension::tests::{check_gradients, random};

    const EPSILON: f64 = 1e-3;

    #[test]
    #[should_panic(expected = "a residual of the input's shape")]
    fn a_residual_of_another_shape_is_refused() {
        let device = burn::tensor::Device::flex();
        let [x, residual] = [[2, 3], [3, 2]].map(|shape| Tensor::<2>::ones(shape, &device));
        let gamma = Tensor::<1>::ones([3], &device);
        add_layer_norm(x, residual, gamma.clone(), gamma, EPSILON);
    }

    #[test]
    fn the_kernel_is_the_composition() {
        for width in [768, 33] {
            let inputs = [
                random([67, width], 2.0, 1),
                random([1, width], 1.5, 2),
                random([1, width], 1.0, 3),
                random([67, width], 1.0, 4),
            ];
            let vectors = |inputs: &[Tensor<2>]| {
                (inputs[1].clone().flatten(0, 1), inputs[2].clone().flatten(0, 1))
            };
            check_gradients(
                &inputs[..3],
                |inputs| {
                    let (gamma, beta) = vectors(inputs);
                    layer_norm(inputs[0].clone(), gamma, beta, EPSILON)
                },
                |inputs| {
                    let (gamma, beta) = vectors(inputs);
                    composed(inputs[0].clone(), gamma, beta, EPSILON)
                },
            );
            check_gradients(
                &inputs,
                |inputs| {
                    let (gamma, beta) = vectors(inputs);
                    let (x, residual) = (inputs[0].clone(), inputs[3].clone());
                    add_layer_norm(x, residual, gamma, beta, EPSILON)
                },
                |inputs| {
                    let (gamma, beta) = vectors(inputs);
                    composed(inputs[0].clone() + inputs[3].clone(), gamma, beta, EPSILON)
                },
            );
        }
    }

    #[test]
    fn parts_change_nothing() {
        let inputs = [random([12, 33], 2.0, 1), random([1, 33], 1.5, 2), random([1, 33], 1.0, 3)];
        let of = |inputs: &[Tensor<2>], parts| {
            let vector = |index: usize| inputs[index].clone().flatten(0, 1);
            composed_in_parts(inputs[0].clone(), vector(1), vector(2), EPSILON, parts)
        };
        check_gradients(&inputs, |inputs| of(inputs, 4), |inputs| of(inputs, 1));
    }
}
