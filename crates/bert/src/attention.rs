use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig, Linear};
use burn::tensor::{Int, Tensor};
use nsmc_ops::{LayerNorm, OutputRows, Sequences, dropout, gather};

use crate::{BertConfig, Hooks, Init, LinearSite, SublayerSite};

/// The attention sub-layer: self-attention and its output.
#[derive(Module, Debug)]
pub struct BertAttention {
    /// `attention.self` in a checkpoint.
    pub self_attention: BertSelfAttention,
    /// `attention.output` in a checkpoint.
    pub output: BertSelfOutput,
}

/// Multi-head scaled dot-product attention within each sequence:
/// `dropout(softmax(q · kᵀ / √head_size + mask)) · v`.
#[derive(Module, Debug)]
pub struct BertSelfAttention {
    /// Queries.
    pub query: Linear,
    /// Keys.
    pub key: Linear,
    /// Values.
    pub value: Linear,
    dropout: Dropout,
    num_attention_heads: usize,
    layer_index: usize,
}

/// `LayerNorm(dropout(dense(attended)) + residual)`.
#[derive(Module, Debug)]
pub struct BertSelfOutput {
    /// Mixes the heads.
    pub dense: Linear,
    /// Ends the sub-layer.
    pub layer_norm: LayerNorm,
    dropout: Dropout,
    layer_index: usize,
}

impl BertAttention {
    /// A new sub-layer.
    pub fn new(config: &BertConfig, layer_index: usize, init: &Init<'_>) -> Self {
        let width = config.hidden_size;
        let attention = init.enter("self");
        let output = init.enter("output");
        Self {
            self_attention: BertSelfAttention {
                query: attention.linear("query", width, width, true),
                key: attention.linear("key", width, width, true),
                value: attention.linear("value", width, width, true),
                dropout: DropoutConfig::new(config.attention_probs_dropout_prob).init(),
                num_attention_heads: config.num_attention_heads,
                layer_index,
            },
            output: BertSelfOutput {
                dense: output.linear("dense", width, width, true),
                layer_norm: output.layer_norm(width, config.layer_norm_eps),
                dropout: DropoutConfig::new(config.hidden_dropout_prob).init(),
                layer_index,
            },
        }
    }

    /// The output at `rows` alone.
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
        let residual = gather(hidden_states.clone(), rows.clone(), None);
        let queries = hidden_states.clone();
        let attended =
            self.self_attention.forward(hidden_states, queries, sequences, OutputRows::All, hooks);
        self.output.forward(gather(attended, rows, None), residual, hooks)
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
        let residual = match rows {
            OutputRows::All => hidden_states.clone(),
            OutputRows::First => hidden_states.clone().select(0, sequences.first_rows()),
        };
        let attended =
            self.self_attention.forward(hidden_states, residual.clone(), sequences, rows, hooks);
        self.output.forward(attended, residual, hooks)
    }
}

impl BertSelfAttention {
    fn forward(
        &self,
        hidden_states: Tensor<2>,
        query_states: Tensor<2>,
        sequences: &Sequences,
        rows: OutputRows,
        hooks: &impl Hooks,
    ) -> Tensor<2> {
        let layer = self.layer_index;
        let query = hooks.linear(LinearSite::Query(layer), &self.query, query_states);
        let key = hooks.linear(LinearSite::Key(layer), &self.key, hidden_states.clone());
        let value = hooks.linear(LinearSite::Value(layer), &self.value, hidden_states);

        let heads = self.num_attention_heads;
        nsmc_ops::attention(query, key, value, sequences, rows, heads, &self.dropout)
    }
}

impl BertSelfOutput {
    fn forward(&self, attended: Tensor<2>, residual: Tensor<2>, hooks: &impl Hooks) -> Tensor<2> {
        let layer = self.layer_index;
        let hidden_states = hooks.linear(LinearSite::AttentionOutput(layer), &self.dense, attended);
        let hidden_states = dropout(&self.dropout, hidden_states);
        hooks.sublayer_output(
            SublayerSite::Attention(layer),
            hidden_states,
            residual,
            &self.layer_norm,
        )
    }
}
