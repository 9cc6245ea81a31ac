use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig, Embedding};
use burn::tensor::Tensor;
use nsmc_ops::{LayerNorm, dropout};

use crate::{BertConfig, BertInput, EmbeddingSite, Hooks, Init};

/// `dropout(LayerNorm(word[ids] + token_type[types] + position[positions]))`.
#[derive(Module, Debug)]
pub struct BertEmbeddings {
    /// One row per token of the vocabulary.
    pub word_embeddings: Embedding,
    /// One row per position.
    pub position_embeddings: Embedding,
    /// One row per segment.
    pub token_type_embeddings: Embedding,
    /// Over the sum of the three.
    pub layer_norm: LayerNorm,
    dropout: Dropout,
    pad_token_id: usize,
}

impl BertEmbeddings {
    /// New embeddings.
    pub fn new(config: &BertConfig, init: &Init<'_>) -> Self {
        let width = config.hidden_size;
        Self {
            word_embeddings: init.embedding(
                "word_embeddings",
                config.vocab_size,
                width,
                Some(config.pad_token_id),
            ),
            position_embeddings: init.embedding(
                "position_embeddings",
                config.max_position_embeddings,
                width,
                None,
            ),
            token_type_embeddings: init.embedding(
                "token_type_embeddings",
                config.type_vocab_size,
                width,
                None,
            ),
            layer_norm: init.layer_norm(width, config.layer_norm_eps),
            dropout: DropoutConfig::new(config.hidden_dropout_prob).init(),
            pad_token_id: config.pad_token_id,
        }
    }

    /// Embeds every row; `[rows, hidden_size]`.
    pub fn forward(&self, input: &BertInput, hooks: &impl Hooks) -> Tensor<2> {
        let words = hooks.embedding(
            EmbeddingSite::Word,
            &self.word_embeddings,
            input.input_ids.clone(),
            Some(self.pad_token_id),
        );
        let types = hooks.embedding(
            EmbeddingSite::TokenType,
            &self.token_type_embeddings,
            input.token_type_ids.clone(),
            None,
        );
        let positions = hooks.embedding(
            EmbeddingSite::Position,
            &self.position_embeddings,
            input.position_ids.clone(),
            None,
        );
        let embedded = self.layer_norm.forward(words + types + positions);
        hooks.embedding_output(dropout(&self.dropout, embedded))
    }
}
