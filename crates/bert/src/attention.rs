use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig, LayerNorm, Linear};
use burn::tensor::{Tensor, activation};

use crate::{BertConfig, Hooks, Init, LinearSite, Sequences, SublayerSite};

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

/// Which rows a layer computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OutputRows {
    /// Every row.
    All,
    /// The first row of each sequence, `[CLS]`: all that a classifier reads of the last layer.
    First,
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

        let query = match rows {
            OutputRows::All => self.split_heads(pad(query, sequences), sequences.width()),
            OutputRows::First => self.split_heads(query, 1),
        };
        let key = self.split_heads(pad(key, sequences), sequences.width());
        let value = self.split_heads(pad(value, sequences), sequences.width());

        let [batch_size, heads, queries, head_size] = query.dims();
        let mut scores = query.matmul(key.swap_dims(2, 3)) / (head_size as f64).sqrt();
        if let Some(mask) = sequences.key_mask() {
            scores = scores + mask.reshape([batch_size, 1, 1, sequences.width()]);
        }
        let probabilities = self.dropout.forward(activation::softmax(scores, 3));
        let attended = probabilities.matmul(value).swap_dims(1, 2);
        let attended = attended.reshape([batch_size * queries, heads * head_size]);
        match (rows, sequences.row_positions()) {
            (OutputRows::All, Some(positions)) => attended.select(0, positions),
            _ => attended,
        }
    }

    /// `[batch_size · positions, hidden_size]` to `[batch_size, heads, positions, head_size]`.
    fn split_heads(&self, states: Tensor<2>, positions: usize) -> Tensor<4> {
        let [total, hidden_size] = states.dims();
        let heads = self.num_attention_heads;
        states.reshape([total / positions, positions, heads, hidden_size / heads]).swap_dims(1, 2)
    }
}

/// Rows to positions, `[batch_size · width, hidden_size]`.
fn pad(rows: Tensor<2>, sequences: &Sequences) -> Tensor<2> {
    match sequences.padded_rows() {
        Some(padded_rows) => rows.select(0, padded_rows),
        None => rows,
    }
}

impl BertSelfOutput {
    fn forward(&self, attended: Tensor<2>, residual: Tensor<2>, hooks: &impl Hooks) -> Tensor<2> {
        let layer = self.layer_index;
        let hidden_states = hooks.linear(LinearSite::AttentionOutput(layer), &self.dense, attended);
        let hidden_states = self.dropout.forward(hidden_states);
        hooks.sublayer_output(
            SublayerSite::Attention(layer),
            hidden_states,
            residual,
            &self.layer_norm,
        )
    }
}
