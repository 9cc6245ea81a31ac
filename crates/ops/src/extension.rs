//! The way from burn's tensors to the kernels, forwards and backwards.

use std::sync::Arc;

use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::ops::{Backward, NodeGuard, OpsKind};
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Autodiff, Backend, Flex, backend_extension};

use crate::attention::{AttentionBackward, AttentionSizes};
use crate::dropout::DropoutBackward;
use crate::gather::GatherBackward;
use crate::gelu::GeluBackward;
use crate::layer_norm::{LayerNormBackward, Normalized};
use crate::linear::{LinearBackward, LowRankBackward, LowRankSaved, MultiplyBackward};
use crate::row_attention::RowAttentionBackward;
use crate::storage::{Elements, rows_and_width};
use crate::{attention, dropout, gather, gelu, linear, row_attention};

/// The kernels, as operations of a backend.
#[backend_extension(Flex, Autodiff)]
pub(crate) trait FlexKernels: Backend {
    fn gelu(x: FloatTensor<Self>) -> FloatTensor<Self>;

    fn add_layer_norm(
        x: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        epsilon: f64,
    ) -> FloatTensor<Self>;

    fn layer_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        epsilon: f64,
    ) -> FloatTensor<Self>;

    fn multiply(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self>;

    fn linear(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
    ) -> FloatTensor<Self>;

    #[allow(
        clippy::too_many_arguments,
        reason = "an operation of a backend takes its tensors flat"
    )]
    fn low_rank_linear(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        dropped: FloatTensor<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        scaling: f64,
        same: bool,
    ) -> FloatTensor<Self>;

    fn dropout(x: FloatTensor<Self>, probability: f64, seed: u64) -> FloatTensor<Self>;

    fn gather(
        table: FloatTensor<Self>,
        ids: IntTensor<Self>,
        ignored: Option<usize>,
    ) -> FloatTensor<Self>;

    fn attention(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        sizes: Arc<AttentionSizes>,
    ) -> FloatTensor<Self>;

    fn row_attention(
        query: FloatTensor<Self>,
        offset: FloatTensor<Self>,
        candidates: FloatTensor<Self>,
        dropout: f64,
        seed: u64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);
}

impl FlexKernels for Flex {
    fn gelu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        gelu::forward(x)
    }

    fn add_layer_norm(
        x: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        epsilon: f64,
    ) -> FloatTensor<Self> {
        Normalized::of(x, Some(residual), &gamma, &beta, epsilon, false).output
    }

    fn layer_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        epsilon: f64,
    ) -> FloatTensor<Self> {
        Normalized::of(x, None, &gamma, &beta, epsilon, false).output
    }

    fn multiply(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        linear::product_of(x, weight)
    }

    fn linear(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        linear::forward(x, weight, bias)
    }

    fn low_rank_linear(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        dropped: FloatTensor<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        scaling: f64,
        _same: bool,
    ) -> FloatTensor<Self> {
        linear::low_rank_forward(x, weight, bias, dropped, a, b, scaling).0
    }

    fn dropout(x: FloatTensor<Self>, probability: f64, seed: u64) -> FloatTensor<Self> {
        dropout::drop(x, probability, seed)
    }

    fn gather(
        table: FloatTensor<Self>,
        ids: IntTensor<Self>,
        _ignored: Option<usize>,
    ) -> FloatTensor<Self> {
        gather::forward(table, &Elements::of(ids).ids())
    }

    fn attention(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        sizes: Arc<AttentionSizes>,
    ) -> FloatTensor<Self> {
        attention::forward(query, key, value, &sizes).output
    }

    fn row_attention(
        query: FloatTensor<Self>,
        offset: FloatTensor<Self>,
        candidates: FloatTensor<Self>,
        dropout: f64,
        seed: u64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let attended = row_attention::forward(query, offset, candidates, dropout, seed);
        (attended.output, attended.weights)
    }
}

/// An operation whose input `N` nodes lead on to: its output, tracked with what its gradient needs
/// where any of its inputs is.
fn record<C: CheckpointStrategy, O: Backward<Flex, N>, const N: usize>(
    operation: O,
    nodes: [NodeGuard; N],
    output: FloatTensor<Flex>,
    state: impl FnOnce() -> O::State,
) -> FloatTensor<Autodiff<Flex, C>> {
    match operation.prepare::<C>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(prepared) => prepared.finish(state(), output),
        OpsKind::UnTracked(prepared) => prepared.finish(output),
    }
}

impl<C: CheckpointStrategy> FlexKernels for Autodiff<Flex, C> {
    fn gelu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        let (x, node) = x.into_parts();
        let output = Flex::gelu(x.clone());
        record::<C, _, 1>(GeluBackward, [node], output, || x)
    }

    fn add_layer_norm(
        x: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        epsilon: f64,
    ) -> FloatTensor<Self> {
        let tracked = [&x, &residual, &gamma, &beta].iter().any(|input| input.is_tracked());
        let (x, x_node) = x.into_parts();
        let (residual, residual_node) = residual.into_parts();
        let (gamma, gamma_node) = gamma.into_parts();
        let (beta, beta_node) = beta.into_parts();
        let normalized = Normalized::of(x, Some(residual), &gamma, &beta, epsilon, tracked);
        let nodes = [x_node, gamma_node, beta_node, residual_node];
        record::<C, _, 4>(LayerNormBackward, nodes, normalized.output, || {
            (normalized.saved.expect("what a tracked input saves"), gamma)
        })
    }

    fn layer_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        epsilon: f64,
    ) -> FloatTensor<Self> {
        let tracked = [&x, &gamma, &beta].iter().any(|input| input.is_tracked());
        let (x, x_node) = x.into_parts();
        let (gamma, gamma_node) = gamma.into_parts();
        let (beta, beta_node) = beta.into_parts();
        let normalized = Normalized::of(x, None, &gamma, &beta, epsilon, tracked);
        record::<C, _, 3>(
            LayerNormBackward,
            [x_node, gamma_node, beta_node],
            normalized.output,
            || (normalized.saved.expect("what a tracked input saves"), gamma),
        )
    }

    fn multiply(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        let (x, x_node) = x.into_parts();
        let (weight, weight_node) = weight.into_parts();
        let output = linear::product_of(x.clone(), weight.clone());
        record::<C, _, 2>(MultiplyBackward, [x_node, weight_node], output, || (x, weight))
    }

    fn linear(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let (x, x_node) = x.into_parts();
        let (weight, weight_node) = weight.into_parts();
        let (bias, bias_node) = bias.into_parts();
        let output = linear::forward(x.clone(), weight.clone(), bias);
        let nodes = [x_node, weight_node, bias_node];
        record::<C, _, 3>(LinearBackward, nodes, output, || (x, weight))
    }

    fn low_rank_linear(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        dropped: FloatTensor<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        scaling: f64,
        same: bool,
    ) -> FloatTensor<Self> {
        let (x, x_node) = x.into_parts();
        let (weight, weight_node) = weight.into_parts();
        let (bias, bias_node) = bias.into_parts();
        let (dropped, dropped_node) = dropped.into_parts();
        let (a, a_node) = a.into_parts();
        let (b, b_node) = b.into_parts();
        let (output, low) = linear::low_rank_forward(
            x.clone(),
            weight.clone(),
            bias,
            dropped.clone(),
            a.clone(),
            b.clone(),
            scaling,
        );
        let nodes = [x_node, weight_node, bias_node, dropped_node, a_node, b_node];
        record::<C, _, 6>(LowRankBackward, nodes, output, || LowRankSaved {
            x,
            weight,
            dropped,
            a,
            b,
            low,
            scaling,
            same,
        })
    }

    fn dropout(x: FloatTensor<Self>, probability: f64, seed: u64) -> FloatTensor<Self> {
        let (x, node) = x.into_parts();
        let output = Flex::dropout(x, probability, seed);
        record::<C, _, 1>(DropoutBackward, [node], output, || (probability, seed))
    }

    fn gather(
        table: FloatTensor<Self>,
        ids: IntTensor<Self>,
        ignored: Option<usize>,
    ) -> FloatTensor<Self> {
        let (table, node) = table.into_parts();
        let (rows, _) = rows_and_width(&table);
        let ids = Elements::of(ids).ids();
        let output = gather::forward(table, &ids);
        record::<C, _, 1>(GatherBackward, [node], output, || (rows, ids, ignored))
    }

    fn attention(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        sizes: Arc<AttentionSizes>,
    ) -> FloatTensor<Self> {
        let (query, query_node) = query.into_parts();
        let (key, key_node) = key.into_parts();
        let (value, value_node) = value.into_parts();
        let attended = attention::forward(query.clone(), key.clone(), value.clone(), &sizes);
        let nodes = [query_node, key_node, value_node];
        record::<C, _, 3>(AttentionBackward, nodes, attended.output, || {
            (query, key, value, attended.probabilities, sizes)
        })
    }

    fn row_attention(
        query: FloatTensor<Self>,
        offset: FloatTensor<Self>,
        candidates: FloatTensor<Self>,
        dropout: f64,
        seed: u64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let (query, query_node) = query.into_parts();
        let (offset, offset_node) = offset.into_parts();
        let (candidates, candidates_node) = candidates.into_parts();
        let attended = row_attention::forward(query, offset, candidates, dropout, seed);
        let nodes = [query_node, offset_node, candidates_node];
        let output =
            record::<C, _, 3>(RowAttentionBackward, nodes, attended.output, || attended.saved);
        (output, FloatTensor::<Self>::new(attended.weights))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::Write;
    use std::sync::{Mutex, MutexGuard, PoisonError};

    use burn::tensor::{Device, Tensor, TensorData, Tolerance};

    /// Says what a test could not look at on this machine.
    pub(crate) fn not_checked(what: &str) {
        // Not `println!`, whose words cargo keeps to itself when a test passes.
        std::io::stderr().write_all(format!("NOT CHECKED: {what}.\n").as_bytes()).unwrap();
    }

    /// Seeds what a device draws from, which all tests share: others that draw wait for the guard.
    pub(crate) fn seeded(device: &Device, seed: u64) -> MutexGuard<'static, ()> {
        static DRAWING: Mutex<()> = Mutex::new(());
        let guard = DRAWING.lock().unwrap_or_else(PoisonError::into_inner);
        device.seed(seed);
        guard
    }

    /// Numbers between `-size` and `size`; the same for the same seed.
    pub(crate) fn random(shape: [usize; 2], size: f32, seed: u64) -> TensorData {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let numbers: Vec<f32> = (0..shape[0] * shape[1])
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                ((state >> 40) as f32 / (1 << 23) as f32 - 1.0) * size
            })
            .collect();
        TensorData::new(numbers, shape)
    }

    /// Compares two functions: their values, and the gradients of every input of a loss that weighs
    /// each output differently.
    pub(crate) fn check_gradients(
        inputs: &[TensorData],
        kernel: impl Fn(&[Tensor<2>]) -> Tensor<2>,
        composed: impl Fn(&[Tensor<2>]) -> Tensor<2>,
    ) {
        let run = |function: &dyn Fn(&[Tensor<2>]) -> Tensor<2>| {
            let device = Device::flex().autodiff();
            let inputs: Vec<Tensor<2>> = inputs
                .iter()
                .map(|data| Tensor::from_data(data.clone(), &device).require_grad())
                .collect();
            let output = function(&inputs);
            let weights = random(output.dims(), 1.0, 99);
            let loss = (output.clone() * Tensor::from_data(weights, &device)).sum();
            let gradients = loss.backward();
            let gradients: Vec<TensorData> =
                inputs.iter().map(|input| input.grad(&gradients).unwrap().into_data()).collect();
            (output.into_data(), gradients)
        };
        let (output, gradients) = run(&kernel);
        let (expected_output, expected_gradients) = run(&composed);
        let close = Tolerance::<f32>::default().set_absolute(1e-5).set_relative(1e-5);
        output.assert_approx_eq::<f32>(&expected_output, close);
        for (gradient, expected) in gradients.iter().zip(&expected_gradients) {
            gradient.assert_approx_eq::<f32>(expected, close);
        }
    }
}
