use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops};
use burn::backend::{Dispatch, Flex};
use burn::nn::Dropout;
use burn::tensor::{Tensor, activation};
use burn_flex::FlexTensor;
use multiversion::multiversion;

use crate::attention::softmax;
use crate::dropout::{Mask, draw_seed, drop_elements, probability};
use crate::extension::FlexKernels;
use crate::math::sum2;
use crate::parallel;
use crate::storage::{Elements, has_kernel, new, rows_and_width};

/// Attention of each row over candidates of its own, which are keys and values at once: with
/// `s_i = q · u_i + offset`, the scores not scaled, `p = softmax(dropout(s))`, it is `Σ p_i u_i`.
///
/// Also gives the weights `p`; no gradient flows through these.
///
/// # Shapes
/// - query, output: `[rows, width]`
/// - offset: `[rows, 1]`. It is the same for each of a row's scores, and matters through dropout
///   alone
/// - candidates: at least one `[rows, width]`
/// - weights: `[rows, candidates]`
///
/// # Panics
///
/// If there is no candidate, one is not of the query's shape, or there is not one offset a row.
pub fn row_attention(
    query: Tensor<2>,
    offset: Option<Tensor<2>>,
    candidates: Vec<Tensor<2>>,
    dropout: &Dropout,
) -> (Tensor<2>, Tensor<2>) {
    assert!(!candidates.is_empty(), "at least one candidate");
    let shape = query.dims();
    assert!(candidates.iter().all(|u| u.dims() == shape), "candidates of the query's shape");
    let offset_shape = offset.as_ref().map(Tensor::dims);
    assert!(offset_shape.is_none_or(|found| found == [shape[0], 1]), "an offset a row");
    let dropout = probability(dropout, &query);
    if !has_kernel(&query) {
        return composed(&query, offset.as_ref(), &candidates, dropout);
    }
    let seed = if dropout == 0.0 { 0 } else { draw_seed(&query) };
    kernel(query, offset, candidates, dropout, seed)
}

fn kernel(
    query: Tensor<2>,
    offset: Option<Tensor<2>>,
    candidates: Vec<Tensor<2>>,
    dropout: f64,
    seed: u64,
) -> (Tensor<2>, Tensor<2>) {
    let offset = offset.unwrap_or_else(|| Tensor::zeros([query.dims()[0], 1], &query.device()));
    let (output, weights) = <Dispatch as FlexKernels>::row_attention(
        query.into_dispatch(),
        offset.into_dispatch(),
        Tensor::cat(candidates, 0).into_dispatch(),
        dropout,
        seed,
    );
    (Tensor::from_dispatch(output), Tensor::from_dispatch(weights))
}

fn composed(
    query: &Tensor<2>,
    offset: Option<&Tensor<2>>,
    candidates: &[Tensor<2>],
    dropout: f64,
) -> (Tensor<2>, Tensor<2>) {
    let scores = candidates
        .iter()
        .map(|candidate| {
            let score = (query.clone() * candidate.clone()).sum_dim(1);
            match offset {
                Some(offset) => score + offset.clone(),
                None => score,
            }
        })
        .collect();
    let weights = activation::softmax(drop_elements(Tensor::cat(scores, 1), dropout), 1);
    let output = candidates
        .iter()
        .enumerate()
        .map(|(index, candidate)| candidate.clone() * weights.clone().narrow(1, index, 1))
        .reduce(|sum, weighed| sum + weighed)
        .expect("at least one candidate");
    (output, weights.detach())
}

/// A forward pass.
pub(crate) struct Attended {
    pub(crate) output: FlexTensor,
    pub(crate) weights: FlexTensor,
    pub(crate) saved: Saved,
}

/// What the gradient needs.
#[derive(Clone, Debug)]
pub(crate) struct Saved {
    query: FlexTensor,
    candidates: FlexTensor,
    weights: FlexTensor,
    /// What each score was multiplied by; empty without dropout.
    kept: Vec<f32>,
}

/// The candidates lie one under the other: `[candidates · rows, width]`.
pub(crate) fn forward(
    query: FlexTensor,
    offset: FlexTensor,
    candidates: FlexTensor,
    dropout: f64,
    seed: u64,
) -> Attended {
    let (rows, width) = rows_and_width(&query);
    let count = candidates.layout().shape()[0] / rows;
    let (query, offset) = (Elements::of(query), Elements::of(offset));
    let candidates = Elements::of(candidates);
    let (q, u) = (query.floats(), candidates.floats());

    let mut kept = Vec::new();
    if dropout > 0.0 {
        kept.resize(rows * count, 1.0);
        Mask::new(dropout, seed, 0).apply(0, &mut kept);
    }
    let mut weights = vec![0.0; rows * count];
    scores(&mut weights, q, u, [rows, width, count]);
    for (row, weights) in weights.chunks_exact_mut(count).enumerate() {
        for (index, weight) in weights.iter_mut().enumerate() {
            *weight += offset.floats()[row];
            if let Some(kept) = kept.get(row * count + index) {
                *weight *= kept;
            }
        }
    }
    softmax(&mut weights, count);

    let mut output = parallel::zeros(rows * width);
    weighed_sum(&mut output, &weights, u, [rows, width, count]);
    let weights = new(weights, [rows, count]);
    let saved = Saved {
        query: query.into_tensor(),
        candidates: candidates.into_tensor(),
        weights: weights.clone(),
        kept,
    };
    Attended { output: new(output, [rows, width]), weights, saved }
}

/// `x_r · u_ir` for each row r and candidate i.
fn scores(out: &mut [f32], x: &[f32], u: &[f32], [rows, width, count]: [usize; 3]) {
    let block = parallel::block_rows(width);
    parallel::chunks(out, block * count, |index, out| {
        for (row, out) in out.chunks_exact_mut(count).enumerate() {
            let row = index * block + row;
            let x = &x[row * width..(row + 1) * width];
            for (candidate, out) in out.iter_mut().enumerate() {
                let at = (candidate * rows + row) * width;
                *out = dot(x, &u[at..at + width]);
            }
        }
    });
}

/// `Σ w_ri u_ir`.
fn weighed_sum(out: &mut [f32], weights: &[f32], u: &[f32], [rows, width, count]: [usize; 3]) {
    parallel::row_blocks(out, width, |first, out| {
        for (row, out) in out.chunks_exact_mut(width).enumerate() {
            let row = first + row;
            for candidate in 0..count {
                let weight = weights[row * count + candidate];
                let at = (candidate * rows + row) * width;
                add_multiple(out, weight, &u[at..at + width]);
            }
        }
    });
}

#[multiversion(targets("x86_64+avx512f+avx512dq", "x86_64+avx2"))]
fn dot(x: &[f32], u: &[f32]) -> f32 {
    sum2(x, u, |x, u| x * u)
}

/// `out += weight · u`.
#[multiversion(targets("x86_64+avx512f+avx512dq", "x86_64+avx2"))]
fn add_multiple(out: &mut [f32], weight: f32, u: &[f32]) {
    out.iter_mut().zip(u).for_each(|(out, u)| *out += weight * u);
}

/// `p · g + ds · q`.
#[multiversion(targets("x86_64+avx512f+avx512dq", "x86_64+avx2"))]
fn weigh_both(out: &mut [f32], [p, ds]: [f32; 2], g: &[f32], q: &[f32]) {
    for ((out, g), q) in out.iter_mut().zip(g).zip(q) {
        *out = p * g + ds * q;
    }
}

/// Parents: query, offset, candidates.
#[derive(Debug)]
pub(crate) struct RowAttentionBackward;

impl Backward<Flex, 3> for RowAttentionBackward {
    type State = Saved;

    /// With `g` the output's gradient: `dp_i = g · u_i`, `ds_i = p_i (dp_i - Σ p_j dp_j)` times what
    /// dropout multiplied the score by, `dq = Σ ds_i u_i`, `d offset = Σ ds_i` and
    /// `du_i = p_i g + ds_i q`.
    fn backward(self, ops: Ops<Saved, 3>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<Flex>(&ops.node);
        let saved = ops.state;
        let (rows, width) = rows_and_width(&gradient);
        let count = saved.weights.layout().shape()[1];
        let sizes = [rows, width, count];
        let (gradient, query) = (Elements::of(gradient), Elements::of(saved.query));
        let (candidates, weights) = (Elements::of(saved.candidates), Elements::of(saved.weights));
        let (g, q, u, p) =
            (gradient.floats(), query.floats(), candidates.floats(), weights.floats());

        let mut ds = vec![0.0; rows * count];
        scores(&mut ds, g, u, sizes);
        for (row, ds) in ds.chunks_exact_mut(count).enumerate() {
            let p = &p[row * count..(row + 1) * count];
            let mean = p.iter().zip(&*ds).map(|(p, dp)| p * dp).sum::<f32>();
            for (index, (ds, p)) in ds.iter_mut().zip(p).enumerate() {
                *ds = p * (*ds - mean) * saved.kept.get(row * count + index).unwrap_or(&1.0);
            }
        }

        let [query_node, offset_node, candidates_node] = ops.parents;
        if let Some(node) = query_node {
            let mut dq = parallel::zeros(rows * width);
            weighed_sum(&mut dq, &ds, u, sizes);
            gradients.register::<Flex>(node.id, new(dq, [rows, width]));
        }
        if let Some(node) = offset_node {
            let sums = ds.chunks_exact(count).map(|ds| ds.iter().sum()).collect();
            gradients.register::<Flex>(node.id, new(sums, [rows, 1]));
        }
        if let Some(node) = candidates_node {
            let mut du = parallel::zeros(count * rows * width);
            parallel::row_blocks(&mut du, width, |first, du| {
                for (at, du) in du.chunks_exact_mut(width).enumerate() {
                    let (candidate, row) = ((first + at) / rows, (first + at) % rows);
                    let (p, ds) = (p[row * count + candidate], ds[row * count + candidate]);
                    let range = row * width..(row + 1) * width;
                    weigh_both(du, [p, ds], &g[range.clone()], &q[range]);
                }
            });
            gradients.register::<Flex>(node.id, new(du, [count * rows, width]));
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tolerance};

    use super::*;
    use crate::extension::tests::{check_gradients, random};

    fn inputs() -> Vec<burn::tensor::TensorData> {
        let mut inputs = vec![random([67, 33], 0.5, 1), random([67, 1], 1.0, 2)];
        inputs.extend((3..6).map(|seed| random([67, 33], 1.0, seed)));
        inputs
    }

    #[test]
    fn the_kernel_is_the_composition() {
        check_gradients(
            &inputs(),
            |inputs| {
                let offset = Some(inputs[1].clone());
                kernel(inputs[0].clone(), offset, inputs[2..].to_vec(), 0.0, 0).0
            },
            |inputs| composed(&inputs[0], Some(&inputs[1]), &inputs[2..], 0.0).0,
        );
        let device = Device::flex();
        let tensors: Vec<_> =
            inputs().into_iter().map(|data| Tensor::<2>::from_data(data, &device)).collect();
        let one = |weights: Tensor<2>| weights.into_data();
        let kernel = one(kernel(tensors[0].clone(), None, tensors[2..].to_vec(), 0.0, 0).1);
        let composed = one(composed(&tensors[0], None, &tensors[2..], 0.0).1);
        kernel.assert_approx_eq::<f32>(&composed, Tolerance::absolute(1e-6));
    }

    #[test]
    #[should_panic(expected = "candidates of the query's shape")]
    fn a_candidate_of_another_shape_is_refused() {
        let [query, candidate] = [[2, 3], [1, 3]].map(|shape| {
            // Without a kernel burn would spread the one row over both.
            Tensor::<2>::ones(shape, &Device::flex()).cast(burn::tensor::DType::F64)
        });
        row_attention(query, None, vec![candidate], &burn::nn::DropoutConfig::new(0.0).init());
    }

    #[test]
    #[should_panic(expected = "an offset a row")]
    fn an_offset_of_another_shape_is_refused() {
        let query = Tensor::<2>::ones([2, 3], &Device::flex());
        let candidates = vec![query.clone()];
        let none = burn::nn::DropoutConfig::new(0.0).init();
        row_attention(query.clone(), Some(query), candidates, &none);
    }

    #[test]
    #[should_panic(expected = "at least one candidate")]
    fn no_candidate_is_refused() {
        let query = Tensor::<2>::ones([2, 3], &Device::flex());
        row_attention(query, None, Vec::new(), &burn::nn::DropoutConfig::new(0.0).init());
    }

    #[test]
    fn dropout_is_of_the_scores_and_so_is_its_gradient() {
        let (dropout, seed, count) = (0.4, 11, 3);
        let kept = |device: &Device| {
            let mut kept = vec![1.0; 67 * count];
            Mask::new(dropout, seed, 0).apply(0, &mut kept);
            let zeros = kept.iter().filter(|&&kept| kept == 0.0).count();
            assert!((50..110).contains(&zeros), "{zeros}");
            Tensor::<1>::from_floats(kept.as_slice(), device).reshape([67, count])
        };
        check_gradients(
            &inputs(),
            |inputs| {
                let offset = Some(inputs[1].clone());
                kernel(inputs[0].clone(), offset, inputs[2..].to_vec(), dropout, seed).0
            },
            |inputs| {
                let score = |u: &Tensor<2>| (inputs[0].clone() * u.clone()).sum_dim(1);
                let scores = Tensor::cat(inputs[2..].iter().map(score).collect(), 1);
                let scores = (scores + inputs[1].clone()) * kept(&inputs[0].device());
                let weights = activation::softmax(scores, 1);
                (0..count)
                    .map(|at| inputs[2 + at].clone() * weights.clone().narrow(1, at, 1))
                    .reduce(|a, b| a + b)
                    .unwrap()
            },
        );
    }
}
