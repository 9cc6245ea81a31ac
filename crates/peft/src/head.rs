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
}

impl ClassificationHead {
    /// A new head.
    pub(crate) fn new(config: &BertConfig, init: &Init<'_>) -> Self {
        let width = config.hidden_size;
        let dropout = config.classifier_dropout.unwrap_or(config.hidden_dropout_prob);
        Self {
            dense: init.linear("dense", width, width, true),
            output: init.linear("output", width, config.num_labels(), true),
            dropout: DropoutConfig::new(dropout).init(),
        }
    }

    /// # Shapes
    /// - first_tokens: `[batch_size, hidden_size]`
    /// - output: `[batch_size, num_labels]`
    pub fn forward(&self, first_tokens: Tensor<2>) -> Tensor<2> {
        let hidden = self.dense.forward(dropout(&self.dropout, first_tokens)).tanh();
        self.output.forward(dropout(&self.dropout, hidden))
    }
}
