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
    pad_token_id: Option<usize>,
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
                config.pad_token_id,
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

    /// The embedding of each row of a batch: `[rows, hidden_size]`.
    ///
    /// # Panics
    ///
    /// On `flex`, if a token, position or segment has no row in its table.
    pub fn forward(&self, input: &BertInput, hooks: &impl Hooks) -> Tensor<2> {
        let words = hooks.embedding(
            EmbeddingSite::Word,
            &self.word_embeddings,
            input.input_ids.clone(),
            self.pad_token_id,
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

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::{BertForSequenceClassification, NoHooks};

    /// The word embeddings of a model with this padding token, new, and their gradient for a loss
    /// over all classes; 4 numbers a token.
    fn words(pad_token_id: Option<usize>, input: &BertInput) -> (Vec<f32>, Vec<f32>) {
        let mut config: BertConfig = serde_json::from_str(
            r#"{"vocab_size": 7, "hidden_size": 4, "num_hidden_layers": 2, "num_attention_heads": 2,
                "intermediate_size": 8, "max_position_embeddings": 8}"#,
        )
        .unwrap();
        config.pad_token_id = pad_token_id;
        config.hidden_dropout_prob = 0.0;
        config.attention_probs_dropout_prob = 0.0;
        let device = input.input_ids.device();
        let model = BertForSequenceClassification::new(&config, 3, &device);
        let logits = model.forward(input, &NoHooks);
        let table = model.bert.embeddings.word_embeddings.weight.val();
        let gradient = table.grad(&logits.square().sum().backward()).unwrap();
        (table.into_data().try_to_vec().unwrap(), gradient.into_data().try_to_vec().unwrap())
    }

    fn is_zero(row: &[f32]) -> bool {
        row.iter().all(|&value| value == 0.0)
    }

    #[test]
    fn the_padding_token_alone_is_zero_and_stays_so_and_there_need_be_none() {
        let device = Device::flex().autodiff();
        let ids = [vec![2, 0, 3], vec![2, 5, 0, 4, 3]];
        let input = BertInput::from_ids(&ids, &device);
        for padding in [None, Some(0), Some(5)] {
            let (table, gradient) = words(padding, &input);
            for token in [0, 2, 3, 4, 5] {
                let row = token * 4..(token + 1) * 4;
                let padding = padding == Some(token);
                assert_eq!(is_zero(&table[row.clone()]), padding, "{padding:?}: {token}");
                assert_eq!(is_zero(&gradient[row]), padding, "{padding:?}: {token}");
            }
        }
    }

    #[test]
    fn rows_that_only_fill_a_batch_take_no_gradient_without_a_padding_token_either() {
        let device = Device::flex().autodiff();
        let ids = [2, 6, 3, 0, 0, 2, 5, 6, 4, 3];
        let padded = BertInput::padded(&ids, &[0; 10], vec![3, 5], 5, &device);
        let unpadded = BertInput::from_ids(&[vec![2, 6, 3], vec![2, 5, 6, 4, 3]], &device);
        let (_, padded) = words(None, &padded);
        let (_, unpadded) = words(None, &unpadded);
        assert!(is_zero(&padded[..4]) && !is_zero(&padded[24..]));
        for (padded, unpadded) in padded.into_iter().zip(unpadded) {
            assert!((padded - unpadded).abs() < 1e-6, "{padded} {unpadded}");
        }
    }
}
