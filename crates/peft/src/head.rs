use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig, Linear};
use burn::tensor::Tensor;
use nsmc_bert::{BertConfig, Init};
use nsmc_ops::dropout;

/// AdapterHub's classification head: `linear(dropout(tanh(linear(dropout(first token)))))`, without
/// the pooler. AdapterHub calls its layers `heads.NAME.1` and `heads.NAME.4`.
#[derive(Module, Debug)]
pub struct ClassificationHead {
    /// Keeps the width.
    pub dense: Linear,
    /// To the logits.
    pub output: Linear,
    dropout: Dropout,
    #[module(skip)]
    dropout_prob: Option<f64>,
}

impl ClassificationHead {
    /// A new head; without a dropout of its own it has that of the model's classifier.
    pub(crate) fn new(config: &BertConfig, dropout_prob: Option<f64>, init: &Init<'_>) -> Self {
        let width = config.hidden_size;
        let of_model = config.classifier_dropout.unwrap_or(config.hidden_dropout_prob);
        Self {
            dense: init.linear("dense", width, width, true),
            output: init.linear("output", width, config.num_labels(), true),
            dropout: DropoutConfig::new(dropout_prob.unwrap_or(of_model)).init(),
            dropout_prob,
        }
    }

    /// The head's own dropout; a head without one has that of the model's classifier.
    pub fn dropout_prob(&self) -> Option<f64> {
        self.dropout_prob
    }

    /// The logits from each sequence's first token.
    ///
    /// # Shapes
    /// - first_tokens: `[batch_size, hidden_size]`
    /// - output: `[batch_size, num_labels]`
    pub fn forward(&self, first_tokens: Tensor<2>) -> Tensor<2> {
        let hidden = self.dense.forward(dropout(&self.dropout, first_tokens)).tanh();
        self.output.forward(dropout(&self.dropout, hidden))
    }
}
