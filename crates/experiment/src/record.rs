use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::config::MAX_LAYERS;
use crate::{DataConfig, ExperimentConfig, Provenance, Stretch, write_durably};

/// What a run left: `record.json` in its run directory.
///
/// Test metrics are not here: they are computed from the run's predictions, so that a table can
/// never disagree with them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// [`ExperimentConfig::run_id`].
    pub run_id: String,
    /// [`ExperimentConfig::identity`].
    pub identity: String,
    /// How the run ended.
    pub status: RunStatus,
    /// When it started for the first time, in seconds since 1970 (UTC).
    pub started: u64,
    /// Wall time of the whole run, tokenising, validation, test and all stretches included.
    pub total_seconds: f64,
    /// From each start to its end: several, if the run was stopped or killed. Empty in older
    /// records, whose times are those of the last.
    #[serde(default)]
    pub stretches: Vec<Stretch>,
    /// The device, in words; [`RunRecord::gpus`] reads them.
    pub device: String,
    /// Threads that the CPU backend may use.
    pub threads: usize,
    /// Version of this program.
    pub version: String,
    /// What it found; none if it failed.
    pub results: Option<RunResults>,
    /// What the run was made of; none in older records.
    #[serde(default)]
    pub provenance: Option<Provenance>,
    /// The resolved configuration, without the places of files: those are in the run directory's
    /// `config.toml`.
    pub config: ExperimentConfig,
}

/// What a run found, but for its predictions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunResults {
    /// Parameters that train.
    pub trainable_parameters: usize,
    /// Parameters in all.
    pub total_parameters: usize,
    /// Reviews trained on, after the validation split was held out.
    pub train_reviews: usize,
    /// Reviews held out for validation.
    pub validation_reviews: usize,
    /// Reviews tested.
    pub test_reviews: usize,
    /// Reviews of the training file that are longer than `max_length` and were cut.
    pub truncated_reviews: usize,
    /// AdapterFusion's first stage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapter_stage: Option<StageRecord>,
    /// Optimiser steps in all; of AdapterFusion's second stage. 0 of a baseline.
    pub steps: usize,
    /// One entry per epoch; of AdapterFusion's second stage. Empty of a baseline.
    pub epochs: Vec<EpochRecord>,
    /// Seconds of an epoch's training steps, measured again with nothing beside them: of runs that
    /// shared the machine with others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch_seconds_alone: Option<f64>,
    /// The epoch whose model was tested, from 1; 0 of a baseline.
    pub tested_epoch: usize,
    /// Time of the test pass.
    pub test_seconds: f64,
    /// Largest memory the process held, in MiB: resident memory on a CPU, the device's pool on a
    /// GPU; none where it cannot be read.
    pub peak_memory_mib: Option<f64>,
    /// sha256 of the test predictions.
    pub predictions_sha256: String,
}

/// What a stage before the last found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StageRecord {
    /// Parameters that train.
    pub trainable_parameters: usize,
    /// One entry per epoch.
    pub epochs: Vec<EpochRecord>,
    /// The epoch whose model the next stage took, from 1.
    pub taken_epoch: usize,
}

/// Where a fusion attended to on the test set: an entry of a run's `fusion_attention.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FusionAttention {
    /// The fusion's adapters, in its order.
    pub adapters: Vec<String>,
    /// The encoder layer, from 0.
    pub layer: usize,
    /// After which sub-layer.
    pub place: FusionPlace,
    /// Mean weight of each adapter over all tokens of the test set.
    pub mean: Vec<f64>,
    /// Mean weight of each adapter over the first tokens (`[CLS]`).
    pub mean_first_token: Vec<f64>,
}

/// After which sub-layer of an encoder layer a fusion stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FusionPlace {
    /// After attention.
    Attention,
    /// After the feed-forward layer.
    Output,
}

impl FusionPlace {
    /// Its name in `fusion_attention.json`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Attention => "attention",
            Self::Output => "output",
        }
    }
}

impl FusionAttention {
    /// Whether it has a weight for each of its adapters, which add up to 1, and names a layer that a
    /// model may have.
    pub fn check(&self) -> Result<(), String> {
        const ROUNDING: f64 = 1e-3;
        let Self { adapters, layer, mean, mean_first_token, .. } = self;
        let fits = |weights: &[f64]| weights.len() == adapters.len();
        if adapters.is_empty() || !fits(mean) || !fits(mean_first_token) {
            return Err(format!(
                "layer {layer}: expected a weight for each of {} adapters, found {} and {}",
                adapters.len(),
                mean.len(),
                mean_first_token.len()
            ));
        }
        if *layer >= MAX_LAYERS {
            return Err(format!("layer {layer}: expected a layer below {MAX_LAYERS}"));
        }
        for weights in [mean, mean_first_token] {
            let sum: f64 = weights.iter().sum();
            // So that it is wrong of a sum that is no number, too.
            let is_one = (sum - 1.0).abs() < ROUNDING;
            if !is_one {
                return Err(format!(
                    "layer {layer}: expected weights that add up to 1, found {sum}"
                ));
            }
        }
        Ok(())
    }
}

/// What a GPU is called in [`RunRecord::device`], before its index.
pub const CUDA_GPU: &str = "CUDA GPU";

/// How many CUDA GPUs a device's name is of: `CUDA GPU 0, NVIDIA H100 (burn-cuda) + CUDA GPU 1 …`.
pub fn gpus(device: &str) -> usize {
    device.matches(CUDA_GPU).count()
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunStatus {
    /// Trained and tested.
    Success,
    /// Stopped by an error.
    Failed {
        /// The error.
        error: String,
    },
}

/// One epoch of training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochRecord {
    /// From 1.
    pub epoch: usize,
    /// Optimiser steps of the epoch.
    pub steps: usize,
    /// Time of the epoch's training steps alone: no validation, no copying for a checkpoint (which
    /// another thread writes beside the steps), and with the first step (compilation, autotuning)
    /// replaced by the mean of the others.
    pub train_seconds: f64,
    /// Tokens trained on, padding never counted.
    pub tokens: usize,
    /// Mean loss over the epoch's reviews, with dropout on.
    pub train_loss: f64,
    /// Mean validation loss; none without a validation split.
    pub validation_loss: Option<f64>,
    /// Validation accuracy; none without a validation split.
    pub validation_accuracy: Option<f64>,
}

impl RunResults {
    /// Mean time per epoch; where it was measured alone, that. None of a baseline, which has no
    /// epochs.
    pub fn epoch_seconds(&self) -> Option<f64> {
        let total: f64 = self.epochs.iter().map(|epoch| epoch.train_seconds).sum();
        let mean = (!self.epochs.is_empty()).then(|| total / self.epochs.len() as f64);
        self.epoch_seconds_alone.or(mean)
    }
}

/// Whether a `record.json` is that of a pre-training, which is another than a run's.
pub fn is_of_pretraining(path: &Path) -> bool {
    let text = fs_err::read_to_string(path).unwrap_or_default();
    serde_json::from_str::<serde_json::Value>(&text)
        .is_ok_and(|record| record["metrics"].is_array() && record["run_id"].is_null())
}

impl RunRecord {
    /// How many CUDA GPUs it computed on; 0 for a CPU.
    pub fn gpus(&self) -> usize {
        gpus(&self.device)
    }

    /// Writes `record.json`; it appears whole or not at all.
    pub fn write(&self, path: &Path) -> std::io::Result<()> {
        write_durably(path, self.to_json())
    }

    /// The text of `record.json`.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a record is representable in JSON") + "\n"
    }

    /// Reads `record.json`, and checks it.
    pub fn read(path: &Path) -> std::io::Result<Self> {
        let refuse = |message: String| {
            std::io::Error::new(
                std::io::ErrorKind::InvalidData,
                format!("{}: {message}", path.display()),
            )
        };
        let text = fs_err::read_to_string(path)?;
        let record: Self = serde_json::from_str(&text)
            .map_err(|error| refuse(format!("not a run record: {error}")))?;
        record.check().map_err(refuse)?;
        Ok(record)
    }

    /// What those who read a record rely on: a name that leads nowhere else, a configuration that
    /// metrics can be computed with, and epochs that are counted from 1. The error names the key.
    pub fn check(&self) -> Result<(), String> {
        Self::check_run_id(&self.run_id)?;
        let DataConfig { labels, label_names, .. } = &self.config.data;
        if !(2..=DataConfig::MAX_LABELS).contains(&labels.len()) {
            return Err(format!(
                "`labels`: expected 2 to {} classes, found {}",
                DataConfig::MAX_LABELS,
                labels.len()
            ));
        }
        if label_names.len() != labels.len() {
            return Err(format!(
                "`label_names`: expected a name for each of {} labels, found {}",
                labels.len(),
                label_names.len()
            ));
        }
        let results = self.results.iter();
        let epochs = results.flat_map(|results| {
            let stage = results.adapter_stage.as_ref().map(|stage| &stage.epochs);
            stage.into_iter().chain([&results.epochs])
        });
        for epochs in epochs {
            let last = epochs.len();
            if let Some(epoch) = epochs.iter().find(|epoch| !(1..=last).contains(&epoch.epoch)) {
                let found = epoch.epoch;
                return Err(format!("`epochs`: expected epochs from 1 to {last}, found {found}"));
            }
        }
        if self.config.evaluation.metric_batch_size == 0 {
            return Err("`metric_batch_size`: expected a number from 1, found 0".into());
        }
        Ok(())
    }

    /// Whether a run's name can be that of a file: ASCII letters, digits, `-` and `_`.
    pub fn check_run_id(run_id: &str) -> Result<(), String> {
        let valid = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if run_id.is_empty() || run_id.len() > 200 || !run_id.bytes().all(valid) {
            return Err(format!(
                "`run_id`: expected a name of letters, digits, - and _, found {run_id:?}"
            ));
        }
        Ok(())
    }
}
