use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig, Linear};
use burn::tensor::{Int, Tensor};
use nsmc_ops::{LayerNorm, OutputRows, Sequences, dropout};

use crate::{Activation, BertAttention, BertConfig, Hooks, Init, LinearSite, SublayerSite};

/// One encoder layer: attention, then the feed-forward network, each ended by LayerNorm.
#[derive(Module, Debug)]
pub struct BertLayer {
    /// Attention within each sequence.
    pub attention: BertAttention,
    /// First half of the feed-forward network.
    pub intermediate: BertIntermediate,
    /// Second half of the feed-forward network.
    pub output: BertOutput,
}

/// `activation(dense(hidden_states))`.
#[derive(Module, Debug)]
pub struct BertIntermediate {
    /// Widens to `intermediate_size`.
    pub dense: Linear,
    #[module(skip)]
    activation: Activation,
    layer_index: usize,
}

/// `LayerNorm(dropout(dense(intermediate)) + residual)`.
#[derive(Module, Debug)]
pub struct BertOutput {
    /// Narrows back to `hidden_size`.
    pub dense: Linear,
    /// Ends the layer.
    pub layer_norm: LayerNorm,
    dropout: Dropout,
    layer_index: usize,
}

impl BertLayer {
    /// A new layer, the `layer_index`-th from 0.
    pub fn new(config: &BertConfig, layer_index: usize, init: &Init<'_>) -> Self {
        let (width, inner) = (config.hidden_size, config.intermediate_size);
        let output = init.enter("output");
        Self {
            attention: BertAttention::new(config, layer_index, &init.enter("attention")),
            intermediate: BertIntermediate {
                dense: init.enter("intermediate").linear("dense", width, inner, true),
                activation: config.hidden_act,
                layer_index,
            },
            output: BertOutput {
                dense: output.linear("dense", inner, width, true),
                layer_norm: output.layer_norm(width, config.layer_norm_eps),
                dropout: DropoutConfig::new(config.hidden_dropout_prob).init(),
                layer_index,
            },
        }
    }

    /// # Shapes
    /// - hidden_states: `[rows, hidden_size]`
    /// - output: the same, or `[batch_size, hidden_size]` for the first rows alone
    pub(crate) fn forward(
        &self,
        hidden_states: Tensor<2>,
        sequences: &Sequences,
        rows: OutputRows,
        hooks: &impl Hooks,
    ) -> Tensor<2> {
        let attended = self.attention.forward(hidden_states, sequences, rows, hooks);
        self.feed_forward(attended, hooks)
    }

    /// The output at `rows` alone: attention's keys, values and queries are of all rows, the rest of
    /// these.
    ///
    /// # Shapes
    /// - hidden_states: `[rows, hidden_size]`
    /// - output: `[rows.len(), hidden_size]`
    pub(crate) fn forward_rows(
        &self,
        hidden_states: Tensor<2>,
        sequences: &Sequences,
        rows: Tensor<1, Int>,
        hooks: &impl Hooks,
    ) -> Tensor<2> {
        let attended = self.attention.forward_rows(hidden_states, sequences, rows, hooks);
        self.feed_forward(attended, hooks)
    }

    fn feed_forward(&self, attended: Tensor<2>, hooks: &impl Hooks) -> Tensor<2> {
        let intermediate = self.intermediate.forward(attended.clone(), hooks);
        self.output.forward(intermediate, attended, hooks)
    }
}

impl BertIntermediate {
    fn forward(&self, hidden_states: Tensor<2>, hooks: &impl Hooks) -> Tensor<2> {
        let site = LinearSite::Intermediate(self.layer_index);
        self.activation.forward(hooks.linear(site, &self.dense, hidden_states))
    }
}

impl BertOutput {
    fn forward(
        &self,
        intermediate: Tensor<2>,
        residual: Tensor<2>,
        hooks: &impl Hooks,
    ) -> Tensor<2> {
        let layer = self.layer_index;
        let hidden_states = hooks.linear(LinearSite::Output(layer), &self.dense, intermediate);
        let hidden_states = dropout(&self.dropout, hidden_states);
        hooks.sublayer_output(
            SublayerSite::FeedForward(layer),
            hidden_states,
            residual,
            &self.layer_norm,
        )
    }
}
