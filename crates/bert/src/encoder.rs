use burn::module::Module;
use burn::tensor::{Int, Tensor};
use nsmc_ops::{OutputRows, Sequences, gather};

use crate::{BertConfig, BertLayer, Hooks, Init};

/// The stack of encoder layers.
#[derive(Module, Debug)]
pub struct BertEncoder {
    /// From the embeddings up.
    pub layer: Vec<BertLayer>,
}

impl BertEncoder {
    /// New layers.
    pub fn new(config: &BertConfig, init: &Init<'_>) -> Self {
        let init = init.enter("layer");
        let layer = (0..config.num_hidden_layers)
            .map(|index| BertLayer::new(config, index, &init.enter(index)))
            .collect();
        Self { layer }
    }

    /// The last layer's hidden states: `[rows, hidden_size]`.
    pub fn forward(
        &self,
        hidden_states: Tensor<2>,
        sequences: &Sequences,
        hooks: &impl Hooks,
    ) -> Tensor<2> {
        through(&self.layer, hidden_states, sequences, hooks)
    }

    /// The last layer's hidden state of each sequence's first token: `[batch_size, hidden_size]`.
    ///
    /// They are the same numbers as in [`Self::forward`], but the last layer computes these rows alone.
    pub fn forward_first(
        &self,
        hidden_states: Tensor<2>,
        sequences: &Sequences,
        hooks: &impl Hooks,
    ) -> Tensor<2> {
        let (last, hidden_states) = self.forward_lower(hidden_states, sequences, hooks);
        match last {
            Some(last) => last.forward(hidden_states, sequences, OutputRows::First, hooks),
            None => hidden_states.select(0, sequences.first_rows()),
        }
    }

    /// The last layer's hidden states at `rows`: `[rows.len(), hidden_size]`.
    ///
    /// They are the same numbers as in [`Self::forward`], but behind its attention, which needs every
    /// row, the last layer computes these rows alone.
    pub fn forward_rows(
        &self,
        hidden_states: Tensor<2>,
        sequences: &Sequences,
        rows: Tensor<1, Int>,
        hooks: &impl Hooks,
    ) -> Tensor<2> {
        let (last, hidden_states) = self.forward_lower(hidden_states, sequences, hooks);
        match last {
            Some(last) => last.forward_rows(hidden_states, sequences, rows, hooks),
            None => gather(hidden_states, rows, None),
        }
    }

    /// All layers but the last, which is given with their output.
    fn forward_lower(
        &self,
        hidden_states: Tensor<2>,
        sequences: &Sequences,
        hooks: &impl Hooks,
    ) -> (Option<&BertLayer>, Tensor<2>) {
        let Some((last, lower)) = self.layer.split_last() else { return (None, hidden_states) };
        (Some(last), through(lower, hidden_states, sequences, hooks))
    }

    /// Each layer's hidden states, from the first layer up.
    pub fn forward_each(
        &self,
        hidden_states: Tensor<2>,
        sequences: &Sequences,
        hooks: &impl Hooks,
    ) -> Vec<Tensor<2>> {
        self.layer
            .iter()
            .scan(hidden_states, |hidden_states, layer| {
                *hidden_states =
                    layer.forward(hidden_states.clone(), sequences, OutputRows::All, hooks);
                Some(hidden_states.clone())
            })
            .collect()
    }
}

/// Every row through some layers, one after the other.
fn through(
    layers: &[BertLayer],
    hidden_states: Tensor<2>,
    sequences: &Sequences,
    hooks: &impl Hooks,
) -> Tensor<2> {
    layers.iter().fold(hidden_states, |hidden_states, layer| {
        layer.forward(hidden_states, sequences, OutputRows::All, hooks)
    })
}
