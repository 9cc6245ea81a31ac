use std::ops::Bound;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::config::read_model;
use crate::document::Node;
use crate::method::read_bottleneck;
use crate::numerics;
use crate::reader::Reader;
use crate::{
    AdapterConfig, ConfigError, Document, FileHashes, ModelConfig, Problem, WeightsKind, sha256_hex,
};

/// One pre-training, fully resolved: masked language modelling on a corpus of reviews.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PretrainingConfig {
    /// Decides new weights, data order, masks and dropout.
    pub seed: u64,
    /// The last change of this program that makes the pre-training come to other numbers, as
    /// [`crate::ExperimentConfig::numerics`].
    #[serde(default = "numerics::first", skip_serializing_if = "numerics::is_first")]
    pub numerics: u32,
    /// A new model of some shape, or one that is pre-trained further.
    pub model: ModelConfig,
    /// An adapter that is trained in the place of the model, which is then frozen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adapter: Option<AdapterConfig>,
    /// What it is trained on.
    pub corpus: CorpusConfig,
    /// How it is trained.
    pub training: PretrainingRecipe,
    /// When it is measured and saved.
    pub evaluation: PretrainingEvaluation,
}

/// The reviews of NSMC's raw crawl, without those of its test set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CorpusConfig {
    /// The archive of NSMC's repository. No part of the identity.
    pub archive: PathBuf,
    /// NSMC's test file, whose reviews are left out. No part of the identity.
    pub test: PathBuf,
    /// sha256 of the corpus that is built of them, checked after building.
    pub sha256: String,
    /// Share of the reviews held out to measure on.
    pub held_out_fraction: f64,
    /// Most tokens a review may have, `[CLS]` and `[SEP]` included; longer ones are cut.
    pub max_length: usize,
}

/// The recipe. One step is the mean loss over the masked tokens of
/// `gradient_accumulation_steps` batches.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PretrainingRecipe {
    /// Optimiser steps in all.
    pub num_train_steps: usize,
    /// Steps in which the learning rate rises from 0.
    pub warmup_steps: usize,
    /// Last steps, in which it falls linearly to 0; in between it is constant.
    pub decay_steps: usize,
    /// Most tokens of a batch.
    pub tokens_per_batch: usize,
    /// Batches within which reviews are sorted by length, so that those of a batch are alike; 0
    /// sorts none.
    pub length_window: usize,
    /// Batches of a step.
    pub gradient_accumulation_steps: usize,
    /// What updates the weight matrices of the encoder; everything else is updated by AdamW.
    pub optimizer: PretrainingOptimizer,
    /// Highest learning rate.
    pub learning_rate: f64,
    /// Decay of the first moment.
    pub adam_beta1: f64,
    /// Decay of the second moment.
    pub adam_beta2: f64,
    /// Added to the denominator.
    pub adam_epsilon: f64,
    /// Decoupled weight decay; never applied to biases and LayerNorm parameters.
    pub weight_decay: f64,
    /// The gradient's global norm is scaled down to this; `0` leaves it as it is.
    pub max_grad_norm: f64,
    /// Share of the tokens that are predicted.
    pub mask_fraction: f64,
}

/// An optimiser of pre-training.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PretrainingOptimizer {
    /// AdamW, in PyTorch's form.
    Adamw,
    /// Muon: momentum whose matrix is made orthogonal by five Newton-Schulz steps, scaled to
    /// AdamW's size by `0.2 √max(rows, columns)` (Jordan et al., 2024; Liu et al., 2025).
    Muon,
}

/// When a pre-training is measured and saved, in steps. No part of the identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PretrainingEvaluation {
    /// Steps between two measurements on the held-out reviews.
    pub evaluate_every: usize,
    /// Steps between two checkpoints.
    pub save_every: usize,
}

impl PretrainingConfig {
    /// Reads a resolved configuration.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        Self::from_document(&Document::read(path)?)
    }

    /// Reads a profile, which leaves out where the corpus' files lie and its hash, and of a
    /// pre-trained model all but its folder, `model.name`, relative to `root`.
    pub fn read_profile(
        path: &Path,
        root: &Path,
        archive: &Path,
        test: &Path,
        corpus_sha256: &str,
    ) -> Result<Self, ConfigError> {
        let mut document = Document::read(path)?;
        for (key, file) in [("corpus.archive", archive), ("corpus.test", test)] {
            document.insert_text(key, &file.display().to_string());
        }
        document.insert_text("corpus.sha256", corpus_sha256);
        if let Some((folder, origin)) = document.string("model.name") {
            let sha256 = WeightsKind::Model.sha256(&root.join(&folder), &FileHashes::default())?;
            let sha256 = sha256.ok_or_else(|| {
                ConfigError::Problems(vec![Problem {
                    origin,
                    key: "model.name".into(),
                    message: format!(
                        "expected a folder with model.safetensors or pytorch_model.bin, found \
                         \"{folder}\""
                    ),
                }])
            })?;
            document.insert_text("model.path", &folder);
            document.insert_text("model.revision", &sha256);
        }
        if let Some(Node { origin, .. }) = document.remove(&["numerics"]) {
            return Err(ConfigError::Problems(vec![Problem {
                origin,
                key: "numerics".into(),
                message: "expected none here: it is what this program computes".into(),
            }]));
        }
        let config = Self::from_document(&document)?;
        Ok(Self { numerics: config.todays_numerics(), ..config })
    }

    fn from_document(document: &Document) -> Result<Self, ConfigError> {
        let mut reader = Reader::new(&document.root);
        let seed = reader.get("seed");
        let numerics = numerics::read(&mut reader);
        let model = reader.table("model", read_model);
        let adapter = reader.table_if_any("adapter", read_bottleneck);
        let corpus = reader.table("corpus", |corpus| CorpusConfig {
            archive: PathBuf::from(corpus.get::<String>("archive")),
            test: PathBuf::from(corpus.get::<String>("test")),
            sha256: corpus.sha256("sha256"),
            held_out_fraction: corpus.within("held_out_fraction", 0.0..=0.5),
            max_length: corpus.within("max_length", 3..=65_536),
        });
        let training = reader.table("training", read_recipe);
        let evaluation = reader.table("evaluation", |evaluation| PretrainingEvaluation {
            evaluate_every: evaluation.within("evaluate_every", 1..),
            save_every: evaluation.within("save_every", 1..),
        });
        if adapter.is_some()
            && training.is_some_and(|recipe| recipe.optimizer == PretrainingOptimizer::Muon)
        {
            reader.problem("training", "`optimizer` is for the encoder, which an adapter leaves as it is: expected \"adamw\"");
        }
        if let (Some(ModelConfig::Scratch(model)), Some(corpus)) = (&model, &corpus)
            && corpus.max_length > model.max_position_embeddings
            && reader.is_sound("model.max_position_embeddings")
        {
            reader.problem("corpus", "`max_length` is beyond `model.max_position_embeddings`");
        }
        let config = (|| {
            Some(Self {
                seed,
                numerics,
                model: model?,
                adapter,
                corpus: corpus?,
                training: training?,
                evaluation: evaluation?,
            })
        })();
        reader.finish(config)
    }

    /// The configuration as TOML; [`Self::read`] reads it back.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("a configuration is representable in TOML")
    }

    /// The same without where its files lie on this machine.
    #[must_use]
    pub fn without_paths(&self) -> Self {
        let mut config = self.clone();
        if let ModelConfig::Pretrained { path, .. } = &mut config.model {
            *path = PathBuf::new();
        }
        config.corpus.archive = PathBuf::new();
        config.corpus.test = PathBuf::new();
        config
    }

    /// sha256 over what decides the weights up to the decay of the learning rate: a training that is
    /// made longer goes on from one that was shorter.
    pub fn identity(&self) -> String {
        let mut config = self.without_paths();
        config.training.num_train_steps = 0;
        config.training.decay_steps = 0;
        config.evaluation = PretrainingEvaluation { evaluate_every: 0, save_every: 0 };
        sha256_hex(&serde_json::to_vec(&config).expect("a configuration is representable in JSON"))
    }
}

fn read_recipe(training: &mut Reader<'_>) -> PretrainingRecipe {
    let positive = (Bound::Excluded(0.0), Bound::Included(1.0));
    let recipe = PretrainingRecipe {
        num_train_steps: training.within("num_train_steps", 1..),
        warmup_steps: training.within("warmup_steps", 0..),
        decay_steps: training.within("decay_steps", 0..),
        tokens_per_batch: training.within("tokens_per_batch", 16..=1 << 24),
        length_window: training.within("length_window", 0..),
        gradient_accumulation_steps: training.within("gradient_accumulation_steps", 1..=1 << 20),
        optimizer: training.choice(
            "optimizer",
            &[("adamw", PretrainingOptimizer::Adamw), ("muon", PretrainingOptimizer::Muon)],
        ),
        learning_rate: training.within("learning_rate", positive),
        adam_beta1: training.within("adam_beta1", 0.0..1.0),
        adam_beta2: training.within("adam_beta2", 0.0..1.0),
        adam_epsilon: training.within("adam_epsilon", positive),
        weight_decay: training.within("weight_decay", 0.0..=1.0),
        max_grad_norm: training.within("max_grad_norm", 0.0..),
        mask_fraction: training.within("mask_fraction", positive),
    };
    if recipe.warmup_steps + recipe.decay_steps > recipe.num_train_steps
        && training.is_sound("num_train_steps")
    {
        training.problem("num_train_steps", "expected at least `warmup_steps` and `decay_steps`");
    }
    recipe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_from_a_mistake_is_none() {
        let profile = include_str!("../../../configs/pretraining/ko-reviews.toml")
            .replace("num_train_steps = 800", "num_train_steps = -800");
        let document = Document::parse(&profile, Path::new("ko.toml")).unwrap();
        let mut reader = Reader::new(&document.root);
        let recipe = reader.table("training", read_recipe);
        for key in ["seed", "model", "adapter", "corpus", "evaluation"] {
            reader.has(key);
        }
        let message = reader.finish(recipe).unwrap_err().to_string();
        assert_eq!(message.lines().count(), 1, "{message}");
        assert!(message.contains("`training.num_train_steps`: expected an integer from 1"));
    }

    #[test]
    fn an_adapters_model_is_known_by_all_that_is_read_of_it() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let profile = root.join("configs/pretraining/ko-reviews.toml");
        let file = Path::new("nsmc");
        let read =
            |root| PretrainingConfig::read_profile(&profile, root, file, file, &"0".repeat(64));
        let config = read(&root).unwrap();
        let hashes = FileHashes::default();
        let expected = WeightsKind::Model.sha256(&root.join("models/mini"), &hashes).unwrap();
        let ModelConfig::Pretrained { revision, path, .. } = config.model.clone() else {
            panic!("the profile names a model");
        };
        assert_eq!((Some(revision), path), (expected, "models/mini".into()));

        // What a program before the decay's change began is another pre-training.
        assert_eq!((config.numerics, config.todays_numerics()), (2, 2));
        let of_before = PretrainingConfig { numerics: 1, ..config.clone() };
        assert_ne!(of_before.identity(), config.identity());
        assert!(!of_before.to_toml().contains("numerics"), "as programs before wrote it");
        let [(en, _)] = of_before.changed_since()[..] else { panic!("one change touches it") };
        assert!(en.contains("no longer decay"), "{en}");

        let nowhere = tempfile::tempdir().unwrap();
        let named = nowhere.path().join("named.toml");
        let text = fs_err::read_to_string(&profile).unwrap();
        fs_err::write(&named, format!("numerics = 2\n{text}")).unwrap();
        let zeros = "0".repeat(64);
        let named = PretrainingConfig::read_profile(&named, &root, file, file, &zeros);
        let message = named.unwrap_err().to_string();
        assert!(message.contains("named.toml:1: `numerics`: expected none here"), "{message}");
        let message = read(nowhere.path()).unwrap_err().to_string();
        assert!(message.contains("`model.name`: expected a folder with"), "{message}");
    }
}
