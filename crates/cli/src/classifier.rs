use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use burn::tensor::Device;
use nsmc_bert::{Activation, BertConfig, BertForSequenceClassification};
use nsmc_data::{BertTokenizer, Review};
use nsmc_experiment::{
    ExperimentConfig, ModelConfig, RunRecord, RunStatus, ScratchModel, Selection,
};
use nsmc_peft::PeftModel;
use nsmc_training::{TrainingError, is_cpu, set_precision};

use crate::{checksums, provenance};

/// A model with what is needed to use it.
pub(crate) struct Classifier {
    pub(crate) config: BertConfig,
    pub(crate) tokenizer: BertTokenizer,
    pub(crate) model: PeftModel,
}

impl Classifier {
    /// The base model that a run starts from, made on `device`. A vocabulary trained from scratch is
    /// trained on `reviews`.
    pub(crate) fn base(
        experiment: &ExperimentConfig,
        reviews: &[&Review],
        device: &Device,
    ) -> Result<Self> {
        let labels = experiment.data.label_names.clone();
        let seed = experiment.seed;
        let classifier = match &experiment.model {
            ModelConfig::Pretrained { path, .. } => {
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

    /// The model of a run's checkpoint. Where that holds only what was added to the base, the base
    /// comes from where the run took it.
    pub(crate) fn trained(
        folder: &Path,
        experiment: &ExperimentConfig,
        device: &Device,
    ) -> Result<Self> {
        let config = BertConfig::read(&folder.join("config.json"))?;
        let tokenizer = BertTokenizer::from_pretrained(folder)?;
        let checkpoint = || format!("the checkpoint {}", folder.display());
        let seed = experiment.seed;
        let model = if PeftModel::is_checkpoint(folder) {
            let base = match &experiment.model {
                ModelConfig::Pretrained { path, name, .. } => {
                    BertForSequenceClassification::from_pretrained(path, &config, seed, device)
                        .with_context(|| format!("the base model `{name}` of the run"))?
                }
                ModelConfig::Scratch(_) => {
                    BertForSequenceClassification::new(&config, seed, device)
                }
            };
            PeftModel::new(base, &config).load_checkpoint(folder).with_context(checkpoint)?
        } else {
            let base = BertForSequenceClassification::from_checkpoint(folder, &config, device)
                .with_context(checkpoint)?;
            PeftModel::new(base, &config)
        };
        let trained = Self { config, tokenizer, model };
        trained.check(experiment.data.max_length).with_context(checkpoint)?;
        Ok(trained)
    }

    /// The model of a finished run. It computes in the precision it was trained in, but on a CPU in
    /// float32.
    pub(crate) fn of_run(run: &Path, record: &RunRecord, device: &Device) -> Result<Self> {
        if let RunStatus::Failed { error } = &record.status {
            bail!("{}: the run has no model to test or use: {error}", run.display());
        }
        if record.config.method.is_baseline() {
            bail!(
                "{}: a run of the baseline `{}` keeps no model; `cargo xtask train` runs it again",
                run.display(),
                record.config.method.name()
            );
        }
        if !is_cpu(device) {
            set_precision(record.config.training.precision, device)?;
        }
        let folder = checkpoint(run, record.config.training.selection);
        checksums::check(run, &folder)?;
        if PeftModel::is_checkpoint(&folder) {
            // What was added to another base says something else.
            provenance::model(&record.config.model)?;
        }
        Self::trained(&folder, &record.config, device)
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

/// The folder of the checkpoint that a run tests.
pub(crate) fn checkpoint(run: &Path, selection: Selection) -> PathBuf {
    run.join("checkpoint").join(match selection {
        Selection::Last => "last",
        Selection::Best => "best",
    })
}

/// Writes a model with its tokenizer: whole, in Hugging Face layout, if the base trained, otherwise
/// what was added to it.
pub(crate) fn save(
    model: &PeftModel,
    tokenizer: &BertTokenizer,
    max_length: usize,
    folder: &Path,
) -> Result<(), TrainingError> {
    if model.trains().base {
        model.base.save_pretrained(folder, model.config())?;
    } else {
        model.save_checkpoint(folder)?;
        model.config().write(folder, "BertForSequenceClassification")?;
    }
    tokenizer
        .save(folder, max_length)
        .map_err(|error| TrainingError::Io(std::io::Error::other(error)))
}

pub(crate) fn scratch(shape: &ScratchModel, vocab_size: usize) -> BertConfig {
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
        pad_token_id: Some(0),
        id2label: std::collections::BTreeMap::new(),
    }
}
