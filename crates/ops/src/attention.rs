use std::ops::Range;
use std::sync::Arc;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops};
use burn::backend::{Dispatch, Flex};
use burn::nn::Dropout;
use burn::tensor::{Tensor, activation};
use burn_flex::FlexTensor;
use multiversion::multiversion;
use rayon::prelude::*;

use crate::dropout::{Mask, draw_seed, drop_elements, probability};
use crate::extension::FlexKernels;
use crate::math::{exp, sum, sum2};
use crate::matrix::{View, multiply};
use crate::parallel;
use crate::precision::product;
use crate::storage::{Elements, has_kernel, new};
use crate::{OutputRows, Sequences};

/// Multi-head scaled dot-product attention within each sequence:
/// `dropout(softmax(q · kᵀ / √head_size)) · v`, with no padding computed.
///
/// # Shapes
/// - query, output: `[rows, hidden_size]`, or `[batch_size, hidden_size]` for the first rows alone
/// - key, value: `[rows, hidden_size]`
///
/// # Panics
///
/// Unless the three have one width, of whole heads, and as many rows as the sequences say.
pub fn attention(
    query: Tensor<2>,
    key: Tensor<2>,
    value: Tensor<2>,
    sequences: &Sequences,
    rows: OutputRows,
    num_attention_heads: usize,
    dropout: &Dropout,
) -> Tensor<2> {
    let dropout = probability(dropout, &query);
    if !has_kernel(&query) {
        return composed(query, key, value, sequences, rows, num_attention_heads, dropout);
    }
    let seed = if dropout == 0.0 { 0 } else { draw_seed(&query) };
    let hidden_size = key.dims()[1];
    let widths =
        [query.dims()[1], value.dims()[1], hidden_size / num_attention_heads * num_attention_heads];
    assert_eq!(widths, [hidden_size; 3], "one width, of whole heads");
    let queries = match rows {
        OutputRows::All => sequences.rows(),
        OutputRows::First => sequences.batch_size(),
    };
    let counts = [query.dims()[0], key.dims()[0], value.dims()[0]];
    assert_eq!(counts, [queries, sequences.rows(), sequences.rows()], "the sequences' own rows");
    let sizes = AttentionSizes {
        sequences: spans(sequences, rows),
        heads: num_attention_heads,
        hidden_size,
        dropout,
        seed,
    };
    let output = <Dispatch as FlexKernels>::attention(
        query.into_dispatch(),
        key.into_dispatch(),
        value.into_dispatch(),
        Arc::new(sizes),
    );
    Tensor::from_dispatch(output)
}

fn composed(
    query: Tensor<2>,
    key: Tensor<2>,
    value: Tensor<2>,
    sequences: &Sequences,
    rows: OutputRows,
    heads: usize,
    probability: f64,
) -> Tensor<2> {
    let pad = |states: Tensor<2>| match sequences.padded_rows() {
        Some(padded_rows) => states.select(0, padded_rows),
        None => states,
    };
    let width = sequences.width();
    let query = match rows {
        OutputRows::All => split_heads(pad(query), width, heads),
        OutputRows::First => split_heads(query, 1, heads),
    };
    let key = split_heads(pad(key), width, heads);
    let value = split_heads(pad(value), width, heads);

    let [batch_size, heads, queries, head_size] = query.dims();
    let mut scores = product(query, key.swap_dims(2, 3)) / (head_size as f64).sqrt();
    if let Some(mask) = sequences.key_mask() {
        scores = scores + mask.reshape([batch_size, 1, 1, width]);
    }
    let probabilities = drop_elements(activation::softmax(scores, 3), probability);
    let attended = product(probabilities, value).swap_dims(1, 2);
    let attended = attended.reshape([batch_size * queries, heads * head_size]);
    match (rows, sequences.row_positions()) {
        (OutputRows::All, Some(positions)) => attended.select(0, positions),
        _ => attended,
    }
}

/// `[batch_size · positions, hidden_size]` to `[batch_size, heads, positions, head_size]`.
fn split_heads(states: Tensor<2>, positions: usize, heads: usize) -> Tensor<4> {
    let [total, hidden_size] = states.dims();
    states.reshape([total / positions, positions, heads, hidden_size / heads]).swap_dims(1, 2)
}

/// Where everything of an attention lies.
#[derive(Clone, Debug)]
pub(crate) struct AttentionSizes {
    sequences: Vec<Span>,
    heads: usize,
    hidden_size: usize,
    dropout: f64,
    seed: u64,
}

/// One sequence's rows.
#[derive(Clone, Debug)]
struct Span {
    /// Of the queries and the output: those that are computed.
    queries: Range<usize>,
    /// Of the output, up to the next sequence's: what is not computed of it stays 0.
    output: Range<usize>,
    /// Of keys and values.
    keys: Range<usize>,
    /// Likewise.
    key_rows: Range<usize>,
}

fn spans(sequences: &Sequences, rows: OutputRows) -> Vec<Span> {
    let mut spans = Vec::with_capacity(sequences.batch_size());
    let mut first = 0;
    for (index, &length) in sequences.lengths().iter().enumerate() {
        let next = first + if sequences.rows_are_positions() { sequences.width() } else { length };
        let (queries, output) = match rows {
            OutputRows::All => (first..first + length, first..next),
            OutputRows::First => (index..index + 1, index..index + 1),
        };
        spans.push(Span { queries, output, keys: first..first + length, key_rows: first..next });
        first = next;
    }
    spans
}

impl AttentionSizes {
    fn head_size(&self) -> usize {
        self.hidden_size / self.heads
    }

    fn factor(&self) -> f32 {
        (self.head_size() as f64).sqrt().recip() as f32
    }

    fn mask(&self, sequence: usize, head: usize) -> Mask {
        Mask::new(self.dropout, self.seed, (sequence * self.heads + head) as u32)
    }

    /// One head of rows that start at `first` of a slice.
    fn head(&self, first: usize, rows: &Range<usize>, head: usize) -> View {
        let offset = first * self.hidden_size + head * self.head_size();
        View::new(offset, rows.len(), self.head_size(), self.hidden_size)
    }

    /// Splits rows into each sequence's.
    fn split<'a>(
        &self,
        mut rows: &'a mut [f32],
        range: impl Fn(&Span) -> Range<usize>,
    ) -> Vec<&'a mut [f32]> {
        let mut parts = Vec::with_capacity(self.sequences.len());
        for span in &self.sequences {
            let (part, rest) =
                std::mem::take(&mut rows).split_at_mut(range(span).len() * self.hidden_size);
            parts.push(part);
            rows = rest;
        }
        parts
    }
}

impl Span {
    /// Scores of one head.
    fn scores(&self) -> usize {
        self.queries.len() * self.keys.len()
    }

    fn scores_view(&self) -> View {
        View::new(0, self.queries.len(), self.keys.len(), self.keys.len())
    }
}

/// A forward pass.
pub(crate) struct Attended {
    pub(crate) output: FlexTensor,
    pub(crate) probabilities: Arc<Probabilities>,
}

/// Softmax of the scores, before dropout: of each sequence, `[heads, queries, keys]`.
pub(crate) type Probabilities = Vec<Vec<f32>>;

pub(crate) fn forward(
    query: FlexTensor,
    key: FlexTensor,
    value: FlexTensor,
    sizes: &AttentionSizes,
) -> Attended {
    let (query, key, value) = (Elements::of(query), Elements::of(key), Elements::of(value));
    let rows: usize = sizes.sequences.iter().map(|span| span.output.len()).sum();
    let mut output = parallel::zeros(rows * sizes.hidden_size);
    let parts = sizes.split(&mut output, |span| span.output.clone());
    let probabilities = sizes
        .sequences
        .par_iter()
        .zip(parts)
        .enumerate()
        .map(|(sequence, (span, output))| {
            let mut probabilities = vec![0.0; sizes.heads * span.scores()];
            let mut dropped = vec![0.0; if sizes.dropout == 0.0 { 0 } else { span.scores() }];
            let heads = probabilities.chunks_exact_mut(span.scores()).enumerate();
            for (head, scores) in heads {
                let query = (query.floats(), sizes.head(span.queries.start, &span.queries, head));
                let (key, value) = (key.floats(), value.floats());
                let view = sizes.head(span.keys.start, &span.keys, head);
                let flat = span.scores_view();
                multiply((scores, flat), query, (key, view.transposed()), sizes.factor());
                softmax(scores, span.keys.len());
                let attending = if sizes.dropout == 0.0 {
                    &*scores
                } else {
                    dropped.copy_from_slice(scores);
                    sizes.mask(sequence, head).apply(0, &mut dropped);
                    &dropped
                };
                let output_view = sizes.head(0, &span.queries, head);
                multiply((output, output_view), (attending, flat), (value, view), 1.0);
            }
            probabilities
        })
        .collect();
    let output = new(output, [rows, sizes.hidden_size]);
    Attended { output, probabilities: Arc::new(probabilities) }
}

/// Of each row of `keys` scores.
#[multiversion(targets("x86_64+avx512f+avx512dq", "x86_64+avx2"))]
pub(crate) fn softmax(scores: &mut [f32], keys: usize) {
    for scores in scores.chunks_exact_mut(keys) {
        let highest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        for score in scores.iter_mut() {
            *score = exp(*score - highest);
        }
        let sum = sum(scores, |score| score);
        for score in scores {
            *score /= sum;
        }
    }
}

/// `p (dp - Σ dp p)` in the place of each row of `dp`, with `p` its probabilities.
#[multiversion(targets("x86_64+avx512f+avx512dq", "x86_64+avx2"))]
fn softmax_gradient(gradient: &mut [f32], probabilities: &[f32], keys: usize) {
    let rows = gradient.chunks_exact_mut(keys).zip(probabilities.chunks_exact(keys));
    for (gradient, probabilities) in rows {
        let mean = sum2(gradient, probabilities, |dp, p| dp * p);
        for (dp, p) in gradient.iter_mut().zip(probabilities) {
            *dp = p * (*dp - mean);
        }
    }
}

#[derive(Debug)]
pub(crate) struct AttentionBackward;

impl Backward<Flex, 3> for AttentionBackward {
    type State = (FlexTensor, FlexTensor, FlexTensor, Arc<Probabilities>, Arc<AttentionSizes>);

    fn backward(self, ops: Ops<Self::State, 3>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = Elements::of(gradients.consume::<Flex>(&ops.node));
        let (query, key, value, probabilities, sizes) = ops.state;
        let inputs = Inputs {
            query: Elements::of(query),
            key: Elements::of(key),
            value: Elements::of(value),
            gradient,
        };
        let rows: usize = sizes.sequences.iter().map(|span| span.output.len()).sum();
        let key_rows: usize = sizes.sequences.iter().map(|span| span.key_rows.len()).sum();
        let mut found = [rows, key_rows, key_rows]
            .map(|rows| (rows, parallel::zeros(rows * sizes.hidden_size)));
        let [(_, query), (_, key), (_, value)] = &mut found;
        let parts = sizes
            .split(query, |span| span.output.clone())
            .into_par_iter()
            .zip(sizes.split(key, |span| span.key_rows.clone()))
            .zip(sizes.split(value, |span| span.key_rows.clone()));
        parts.enumerate().for_each(|(sequence, ((query, key), value))| {
            let probabilities = &probabilities[sequence];
            inputs.differentiate(&sizes, sequence, probabilities, [query, key, value]);
        });
        for (node, (rows, gradient)) in ops.parents.iter().zip(found) {
            if let Some(node) = node {
                gradients.register::<Flex>(node.id, new(gradient, [rows, sizes.hidden_size]));
            }
        }
    }
}

struct Inputs {
    query: Elements,
    key: Elements,
    value: Elements,
    /// Of the output.
    gradient: Elements,
}

impl Inputs {
    /// With `p` the probabilities, `d` those after dropout, `o` the output's gradient:
    /// `dv = dᵀ o`, `dp = dropout(o vᵀ)`, `ds = p (dp - Σ dp p)`, `dq = ds k / √head_size`,
    /// `dk = dsᵀ q / √head_size`.
    fn differentiate(
        &self,
        sizes: &AttentionSizes,
        sequence: usize,
        probabilities: &[f32],
        [query, key, value]: [&mut [f32]; 3],
    ) {
        let span = &sizes.sequences[sequence];
        let flat = span.scores_view();
        let mut dropped = vec![0.0; span.scores()];
        let mut scores = vec![0.0; span.scores()];
        for (head, probabilities) in probabilities.chunks_exact(span.scores()).enumerate() {
            let mask = sizes.mask(sequence, head);
            let queries = sizes.head(span.queries.start, &span.queries, head);
            let keys = sizes.head(span.keys.start, &span.keys, head);
            let outputs = sizes.head(span.output.start, &span.queries, head);
            let gradient = (self.gradient.floats(), outputs);
            dropped.copy_from_slice(probabilities);
            if sizes.dropout != 0.0 {
                mask.apply(0, &mut dropped);
            }
            let value_view = sizes.head(0, &span.keys, head);
            multiply((value, value_view), (&dropped, flat.transposed()), gradient, 1.0);
            let values = (self.value.floats(), keys.transposed());
            multiply((&mut scores, flat), gradient, values, 1.0);
            if sizes.dropout != 0.0 {
                mask.apply(0, &mut scores);
            }
            softmax_gradient(&mut scores, probabilities, span.keys.len());
            let query_view = sizes.head(0, &span.queries, head);
            let keys = (self.key.floats(), keys);
            multiply((query, query_view), (&scores, flat), keys, sizes.factor());
            let key_view = sizes.head(0, &span.keys, head);
            let queries = (self.query.floats(), queries);
            multiply((key, key_view), (&scores, flat.transposed()), queries, sizes.factor());
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::nn::DropoutConfig;
    use burn::tensor::Device;

    use super::*;
    use crate::extension::tests::{check_gradients, random, seeded};

    const HEADS: usize = 3;
    const HIDDEN_SIZE: usize = 24;

    fn none() -> Dropout {
        DropoutConfig::new(0.0).init()
    }

    fn floats(tensor: Tensor<2>) -> Vec<f32> {
        tensor.into_data().try_to_vec().unwrap()
    }

    fn check(sequences: &Sequences, rows: OutputRows) {
        let queries = match rows {
            OutputRows::All => sequences.rows(),
            OutputRows::First => sequences.batch_size(),
        };
        let inputs = [
            random([queries, HIDDEN_SIZE], 2.0, 1),
            random([sequences.rows(), HIDDEN_SIZE], 2.0, 2),
            random([sequences.rows(), HIDDEN_SIZE], 2.0, 3),
        ];
        check_gradients(
            &inputs,
            |inputs| {
                let [query, key, value] = [0, 1, 2].map(|index| inputs[index].clone());
                attention(query, key, value, sequences, rows, HEADS, &none())
            },
            |inputs| {
                let [query, key, value] = [0, 1, 2].map(|index| inputs[index].clone());
                composed(query, key, value, sequences, rows, HEADS, 0.0)
            },
        );
    }

    #[test]
    #[should_panic(expected = "the sequences' own rows")]
    fn rows_of_no_sequence_are_refused() {
        let rows = Tensor::<2>::ones([10, HIDDEN_SIZE], &Device::flex());
        let sequences = Sequences::unpadded(vec![5, 2], &Device::flex());
        attention(rows.clone(), rows.clone(), rows, &sequences, OutputRows::All, HEADS, &none());
    }

    #[test]
    fn the_kernel_is_the_composition() {
        let device = Device::flex().autodiff();
        for lengths in [vec![5, 1, 17, 2], vec![4, 4], vec![1], vec![70, 3]] {
            let sequences = Sequences::unpadded(lengths, &device);
            check(&sequences, OutputRows::All);
            check(&sequences, OutputRows::First);
        }
    }

    #[test]
    fn padded_rows_change_nothing() {
        let device = Device::flex().autodiff();
        let lengths = vec![5, 1, 8];
        let rows = [0, 1, 2, 3, 4, 8, 16, 17, 18, 19, 20, 21, 22, 23];
        let run = |padded: bool| {
            let states = [4, 5, 6].map(|seed| {
                let states = Tensor::<2>::from_data(random([24, HIDDEN_SIZE], 2.0, seed), &device);
                states.require_grad()
            });
            let real = Tensor::from_data(rows, &device);
            let [query, key, value] = states.clone();
            let output = if padded {
                let sequences = Sequences::padded(lengths.clone(), 8, &device);
                let rows = OutputRows::All;
                attention(query, key, value, &sequences, rows, HEADS, &none()).select(0, real)
            } else {
                let sequences = Sequences::unpadded(lengths.clone(), &device);
                let [query, key, value] =
                    [query, key, value].map(|states| states.select(0, real.clone()));
                attention(query, key, value, &sequences, OutputRows::All, HEADS, &none())
            };
            let weights = Tensor::from_data(random([14, HIDDEN_SIZE], 1.0, 9), &device);
            let gradients = (output.clone() * weights).sum().backward();
            let gradients = states.map(|states| floats(states.grad(&gradients).unwrap()));
            (floats(output), gradients)
        };
        assert_eq!(run(true), run(false));
    }

    #[test]
    fn dropout_scales_what_it_keeps_and_the_gradient_sees_the_same_mask() {
        const SEQUENCES: [(usize, usize); 2] = [(0, 9), (9, 30)];

        let device = Device::flex().autodiff();
        let sequences = Sequences::unpadded(SEQUENCES.map(|(_, length)| length).into(), &device);
        // Two heads of values that are the identity show the probabilities themselves.
        let identity: Vec<f32> = SEQUENCES
            .iter()
            .flat_map(|&(_, length)| 0..length)
            .flat_map(|position| {
                (0..64).map(move |column| f32::from(u8::from(column % 32 == position)))
            })
            .collect();
        let value = burn::tensor::TensorData::new(identity, [39, 64]);
        let value = Tensor::<2>::from_data(value, &device).require_grad();
        let query = Tensor::from_data(random([39, 64], 1.0, 1), &device);
        let key = Tensor::from_data(random([39, 64], 1.0, 2), &device);
        let attend = |dropout| {
            let (query, key, value) = (query.clone(), key.clone(), value.clone());
            let dropout = DropoutConfig::new(dropout).init();
            attention(query, key, value, &sequences, OutputRows::All, 2, &dropout)
        };
        let _guard = seeded(&device, 3);
        let dropped = attend(0.25);
        let all = floats(attend(0.0));
        let some = floats(dropped.clone());
        let mut kept = 0;
        for (some, all) in some.iter().zip(&all).filter(|(_, all)| **all > 0.0) {
            assert!(*some == 0.0 || (some / all * 0.75 - 1.0).abs() < 1e-5, "{some} {all}");
            kept += usize::from(*some > 0.0);
        }
        let scores = 2 * (9 * 9 + 30 * 30);
        assert!((1_375..1_570).contains(&kept), "{kept} of {scores}");

        let gradient = floats(value.grad(&dropped.sum().backward()).unwrap());
        let mut patterns = Vec::new();
        for ((first, length), head) in SEQUENCES.into_iter().flat_map(|s| [(s, 0), (s, 1)]) {
            let place = |row: usize, column: usize| (first + row) * 64 + head * 32 + column;
            // The sum over a key's column is the gradient of that key's value.
            for position in 0..length {
                let expected: f32 = (0..length).map(|row| some[place(row, position)]).sum();
                assert!((gradient[place(position, 0)] - expected).abs() < 1e-5);
            }
            let scores = (0..length).flat_map(|row| (0..length).map(move |column| (row, column)));
            let kept = scores.map(|(row, column)| some[place(row, column)] > 0.0);
            patterns.push(kept.take(9 * 9).collect::<Vec<bool>>());
        }
        // No head of a sequence drops what another one drops.
        patterns.sort_unstable();
        patterns.dedup();
        assert_eq!(patterns.len(), 4);
    }
}
