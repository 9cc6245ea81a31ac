use burn::module::Module;
use burn::nn::Linear;
use burn::tensor::{Int, Tensor};

use crate::{BertConfig, BertEmbeddings, BertEncoder, BertInput, Hooks, Init, LinearSite};

/// BERT without a task: embeddings, encoder and pooler.
#[derive(Module, Debug)]
pub struct BertModel {
    /// Tokens to rows.
    pub embeddings: BertEmbeddings,
    /// The layers.
    pub encoder: BertEncoder,
    /// Summary of a sequence for a classifier; a masked language model has none.
    pub pooler: Option<BertPooler>,
}

/// `tanh(dense(first token))`.
#[derive(Module, Debug)]
pub struct BertPooler {
    /// Pre-trained on next-sentence prediction.
    pub dense: Linear,
}

impl BertModel {
    /// A new model with a pooler.
    pub fn new(config: &BertConfig, init: &Init<'_>) -> Self {
        let pooler = init.enter("pooler");
        let width = config.hidden_size;
        Self {
            pooler: Some(BertPooler { dense: pooler.linear("dense", width, width, true) }),
            ..Self::without_pooler(config, init)
        }
    }

    /// A new model without a pooler.
    pub fn without_pooler(config: &BertConfig, init: &Init<'_>) -> Self {
        Self {
            embeddings: BertEmbeddings::new(config, &init.enter("embeddings")),
            encoder: BertEncoder::new(config, &init.enter("encoder")),
            pooler: None,
        }
    }

    /// The last layer's hidden states: `[rows, hidden_size]`.
    pub fn forward(&self, input: &BertInput, hooks: &impl Hooks) -> Tensor<2> {
        let embedded = self.embeddings.forward(input, hooks);
        self.encoder.forward(embedded, &input.sequences, hooks)
    }

    /// The last layer's hidden state of each sequence's first token: `[batch_size, hidden_size]`.
    pub fn forward_first(&self, input: &BertInput, hooks: &impl Hooks) -> Tensor<2> {
        let embedded = self.embeddings.forward(input, hooks);
        self.encoder.forward_first(embedded, &input.sequences, hooks)
    }

    /// The last layer's hidden states at `rows`, a masked language model's masked tokens:
    /// `[rows.len(), hidden_size]`.
    pub fn forward_rows(
        &self,
        input: &BertInput,
        rows: Tensor<1, Int>,
        hooks: &impl Hooks,
    ) -> Tensor<2> {
        let embedded = self.embeddings.forward(input, hooks);
        self.encoder.forward_rows(embedded, &input.sequences, rows, hooks)
    }

    /// The embedding output and each layer's hidden states: transformers' `output_hidden_states`.
    pub fn hidden_states(&self, input: &BertInput, hooks: &impl Hooks) -> Vec<Tensor<2>> {
        let embedded = self.embeddings.forward(input, hooks);
        let mut states = vec![embedded.clone()];
        states.extend(self.encoder.forward_each(embedded, &input.sequences, hooks));
        states
    }
}

impl BertPooler {
    /// The summary of each sequence, from its first token.
    ///
    /// # Shapes
    /// - first_tokens: `[batch_size, hidden_size]`
    /// - output: the same
    pub fn forward(&self, first_tokens: Tensor<2>, hooks: &impl Hooks) -> Tensor<2> {
        hooks.linear(LinearSite::Pooler, &self.dense, first_tokens).tanh()
    }
}
