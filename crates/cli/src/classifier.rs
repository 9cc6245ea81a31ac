use std::path::Path;

use anyhow::{Context, Result, ensure};
use burn::tensor::Device;
use nsmc_bert::{Activation, BertConfig, BertForSequenceClassification};
use nsmc_data::{BertTokenizer, Review};
use nsmc_experiment::{ExperimentConfig, ModelConfig, ScratchModel};
use nsmc_peft::PeftModel;

/// A model with what is needed to use it.
pub(crate) struct Classifier {
    pub(crate) config: BertConfig,
    pub(crate) tokenizer: BertTokenizer,
    pub(crate) model: PeftModel,
}

impl Classifier {
    /// The model that a run starts from, made on `device`. A vocabulary trained from scratch is
    /// trained on `reviews`.
    pub(crate) fn to_train(
        experiment: &ExperimentConfig,
        reviews: &[&Review],
        device: &Device,
    ) -> Result<Self> {
        let labels = experiment.data.label_names.clone();
        let seed = experiment.seed;
        let classifier = match &experiment.model {
            ModelConfig::Pretrained { name, path, .. } => {
                ensure!(
                    path.is_dir(),
                    "{}: no such folder; `cargo xtask download` fetches the model `{name}` if \
                     models/manifest.toml names it",
                    path.display()
                );
                let config = BertConfig::read(&path.join("config.json"))?.with_labels(labels);
                let base =
                    BertForSequenceClassification::from_pretrained(path, &config, seed, device)?;
                let tokenizer = BertTokenizer::from_pretrained(path)?;
                Self { model: PeftModel::new(base, &config), config, tokenizer }
            }
            ModelConfig::Scratch(shape) => {
                let documents: Vec<&str> =
                    reviews.iter().map(|review| review.document.as_str()).collect();
                let tokenizer = BertTokenizer::train(&documents, shape.vocab_size)?;
                let config = scratch(shape, tokenizer.vocab_size()).with_labels(labels);
                let base = BertForSequenceClassification::new(&config, seed, device);
                Self { model: PeftModel::new(base, &config), config, tokenizer }
            }
        };
        classifier.check(experiment.data.max_length)?;
        Ok(classifier)
    }

    /// The model of a run's checkpoint.
    pub(crate) fn trained(folder: &Path, device: &Device) -> Result<Self> {
        let config = BertConfig::read(&folder.join("config.json"))?;
        let base = BertForSequenceClassification::from_pretrained(folder, &config, 0, device)
            .with_context(|| format!("the checkpoint {}", folder.display()))?;
        let tokenizer = BertTokenizer::from_pretrained(folder)?;
        Ok(Self { model: PeftModel::new(base, &config), config, tokenizer })
    }

    fn check(&self, max_length: usize) -> Result<()> {
        let (entries, rows) = (self.tokenizer.vocab_size(), self.config.vocab_size);
        ensure!(
            entries <= rows,
            "the tokenizer has {entries} entries, but the model's word embeddings have {rows} \
             rows: tokenizer and model are not of one checkpoint"
        );
        let positions = self.config.max_position_embeddings;
        ensure!(
            max_length <= positions,
            "`data.max_length`: expected at most the model's {positions} positions, found \
             {max_length}"
        );
        Ok(())
    }
}

fn scratch(shape: &ScratchModel, vocab_size: usize) -> BertConfig {
    BertConfig {
        vocab_size,
        hidden_size: shape.hidden_size,
        num_hidden_layers: shape.num_hidden_layers,
        num_attention_heads: shape.num_attention_heads,
        intermediate_size: shape.intermediate_size,
        max_position_embeddings: shape.max_position_embeddings,
        hidden_act: Activation::Gelu,
        hidden_dropout_prob: shape.hidden_dropout_prob,
        attention_probs_dropout_prob: shape.attention_probs_dropout_prob,
        classifier_dropout: None,
        type_vocab_size: 2,
        initializer_range: 0.02,
        layer_norm_eps: 1e-12,
        pad_token_id: 0,
        id2label: std::collections::BTreeMap::new(),
    }
}
