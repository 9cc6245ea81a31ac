use burn::module::{Module, ParamGroup};
use burn::tensor::Tensor;
use nsmc_bert::{BertForSequenceClassification, BertInput, NoHooks};

use crate::ParameterCounts;

/// A BERT classifier under a fine-tuning method.
#[derive(Module, Debug)]
pub struct PeftModel {
    /// The classifier itself.
    pub base: BertForSequenceClassification,
    #[module(skip)]
    trainable: ParamGroup,
}

impl PeftModel {
    /// Full fine-tuning: every weight trains.
    pub fn vanilla(base: BertForSequenceClassification) -> Self {
        Self { base, trainable: ParamGroup::all() }
    }

    /// How many parameters train, and how many there are.
    pub fn parameter_counts(&self) -> ParameterCounts {
        ParameterCounts::of(self, &self.trainable)
    }

    /// The logits: `[batch_size, num_labels]`.
    pub fn forward(&self, input: &BertInput) -> Tensor<2> {
        self.base.forward(input, &NoHooks)
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use nsmc_bert::{Activation, BertConfig};

    use super::*;

    #[test]
    fn full_fine_tuning_of_the_multilingual_bert_trains_each_of_its_parameters() {
        let config = BertConfig {
            vocab_size: 119_547,
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            intermediate_size: 3072,
            max_position_embeddings: 512,
            hidden_act: Activation::Gelu,
            hidden_dropout_prob: 0.1,
            attention_probs_dropout_prob: 0.1,
            classifier_dropout: None,
            type_vocab_size: 2,
            initializer_range: 0.02,
            layer_norm_eps: 1e-12,
            pad_token_id: 0,
            id2label: [(0, "0".into()), (1, "1".into())].into(),
        };
        // transformers: sum(p.numel() for p in model.parameters()).
        let base = BertForSequenceClassification::new(&config, 0, &Device::flex());
        let model = PeftModel::vanilla(base);
        let expected = ParameterCounts { trainable: 177_854_978, total: 177_854_978 };
        assert_eq!(model.parameter_counts(), expected);
    }
}
