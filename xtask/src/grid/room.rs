use nsmc_experiment::{
    AdapterConfig, AdapterKind, ExperimentConfig, MethodConfig, ModelConfig, Part, Targets,
};
use serde_json::Value;

/// The sizes of a BERT that decide what a run takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Shape {
    hidden: f64,
    layers: f64,
    intermediate: f64,
    vocabulary: f64,
    positions: f64,
}

/// Bytes that a run takes, roughly.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Room {
    /// On disk, when it is done.
    pub(crate) kept: f64,
    /// On disk beside that while it trains: the checkpoints to go on from, and what is being written.
    pub(crate) passing: f64,
    /// In memory, a GPU's if it trains on one, while a checkpoint is written.
    pub(crate) memory: f64,
}

const FLOAT: f64 = 4.0;
/// What a baseline takes on 150,000 reviews.
const BASELINE: f64 = 1.4e9;
/// The program and the reviews with their tokens.
const PROGRAM: f64 = 200e6;
/// Tokens of a review, about: NSMC's have 24, and the longest batch decides.
const TOKENS: f64 = 32.0;
/// Checkpoints to go on from that are on the disk at once: two are kept, and a third is written.
const CHECKPOINTS: f64 = 3.0;

impl Shape {
    /// The shape of a model; none if it is neither here nor known.
    pub(crate) fn of(model: &ModelConfig) -> Option<Self> {
        match model {
            ModelConfig::Scratch(shape) => Some(Self {
                hidden: shape.hidden_size as f64,
                layers: shape.num_hidden_layers as f64,
                intermediate: shape.intermediate_size as f64,
                vocabulary: shape.vocab_size as f64,
                positions: shape.max_position_embeddings as f64,
            }),
            ModelConfig::Pretrained { name, path, .. } => {
                let text = fs_err::read_to_string(path.join("config.json")).ok();
                let read = text.and_then(|text| Self::read(&serde_json::from_str(&text).ok()?));
                // Known before it is fetched.
                let mbert = (name == "bert-base-multilingual-cased").then_some(Self {
                    hidden: 768.0,
                    layers: 12.0,
                    intermediate: 3072.0,
                    vocabulary: 119_547.0,
                    positions: 512.0,
                });
                read.or(mbert)
            }
        }
    }

    fn read(config: &Value) -> Option<Self> {
        let number = |key: &str| config.get(key)?.as_f64();
        Some(Self {
            hidden: number("hidden_size")?,
            layers: number("num_hidden_layers")?,
            intermediate: number("intermediate_size")?,
            vocabulary: number("vocab_size")?,
            positions: number("max_position_embeddings")?,
        })
    }

    /// Tokens that a text may have.
    pub(crate) fn positions(&self) -> usize {
        self.positions as usize
    }

    /// Parameters of the encoder's matrices.
    pub(crate) fn encoder(&self) -> f64 {
        self.layers * self.hidden * (4.0 * self.hidden + 2.0 * self.intermediate)
    }

    /// What a forward pass keeps for the backward one.
    fn activations(&self, config: &ExperimentConfig) -> f64 {
        let tokens = config.training.train_batch_size as f64 * TOKENS;
        tokens * self.layers * (10.0 * self.hidden + 3.0 * self.intermediate)
    }

    fn embeddings(&self) -> f64 {
        self.hidden * (self.vocabulary + self.positions + 2.0)
    }

    fn pooler(&self) -> f64 {
        self.hidden * (self.hidden + 1.0)
    }

    fn bottleneck(&self, adapter: &AdapterConfig) -> f64 {
        let places = match adapter.config {
            AdapterKind::Pfeiffer => 1.0,
            AdapterKind::Houlsby => 2.0,
        };
        places * self.layers * 2.0 * self.hidden * self.hidden / adapter.reduction_factor
    }

    /// Parameters that train, matrices alone.
    fn trainable(&self, method: &MethodConfig) -> f64 {
        let parts = |parts: &[Part]| {
            let size = |part: &Part| match part {
                Part::Head => 2.0 * self.hidden,
                Part::Pooler => self.pooler(),
                Part::LayerNorm => 4.0 * self.layers * self.hidden,
                Part::Embeddings => self.embeddings(),
            };
            parts.iter().map(size).sum::<f64>()
        };
        match method {
            MethodConfig::Vanilla => self.encoder() + self.embeddings() + self.pooler(),
            MethodConfig::HeadOnly(head) => parts(&head.trains),
            MethodConfig::Majority | MethodConfig::Tfidf(_) => 0.0,
            MethodConfig::Lora(lora) => {
                let names = match &lora.target_modules {
                    Targets::List(names) => names.iter().map(String::as_str).collect(),
                    Targets::Text(_) => vec!["query", "key", "value", "dense"],
                };
                let square = 2.0 * self.hidden;
                let width = names.iter().map(|name| match *name {
                    // The output of attention and both layers of the feed-forward network.
                    "dense" => square + 2.0 * (self.hidden + self.intermediate),
                    _ => square,
                });
                self.layers * lora.rank as f64 * width.sum::<f64>() + parts(&lora.trains)
            }
            MethodConfig::Adapter(adapter) => {
                self.bottleneck(&adapter.adapter) + parts(&adapter.trains)
            }
            MethodConfig::AdapterFusion(fusion) => {
                3.0 * self.layers * self.hidden * self.hidden + parts(&fusion.trains)
            }
        }
    }
}

impl Room {
    /// What a run takes; none if its model is not known.
    pub(crate) fn of(config: &ExperimentConfig) -> Option<Self> {
        if config.method.is_baseline() {
            return Some(Self { kept: 0.0, passing: 0.0, memory: BASELINE });
        }
        let shape = Shape::of(&config.model)?;
        let base = shape.encoder() + shape.embeddings() + shape.pooler();
        let trainable = shape.trainable(&config.method);
        let (added, first_stage) = match &config.method {
            MethodConfig::Vanilla | MethodConfig::Majority | MethodConfig::Tfidf(_) => (0.0, 0.0),
            MethodConfig::HeadOnly(_) | MethodConfig::Lora(_) | MethodConfig::Adapter(_) => {
                (trainable, 0.0)
            }
            MethodConfig::AdapterFusion(fusion) => {
                let adapter = shape.bottleneck(&fusion.adapter);
                // A language adapter of reduction factor 2 is fused, too.
                let language = shape.layers * shape.hidden * shape.hidden;
                (trainable + adapter + language, adapter)
            }
        };
        let saved = if config.method == MethodConfig::Vanilla { base } else { added };
        // The last checkpoint and the best.
        let checkpoints = if config.data.validation_fraction > 0.0 { 2.0 } else { 1.0 };
        Some(Self {
            kept: FLOAT * checkpoints * (saved + first_stage),
            // Weights and both of AdamW's moments, and an epoch's model on its way.
            passing: FLOAT * (CHECKPOINTS * 3.0 * trainable + saved),
            // Weights, gradients, moments, and the writer's copies of all but the gradients.
            memory: FLOAT * (base + added + 6.0 * trainable + shape.activations(config)) + PROGRAM,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use nsmc_experiment::Document;

    use super::*;

    #[test]
    fn a_run_is_not_told_that_it_needs_less_than_was_measured() {
        let text = include_str!("../../../fuzz/corpus/configuration/vanilla.toml");
        let document = Document::parse(text, Path::new("vanilla.toml")).unwrap();
        let config = ExperimentConfig::from_document(&document).unwrap();
        let room = |name: &str, path: &str| {
            let (name, path) = (name.to_owned(), path.into());
            let revision = String::new();
            let model = ModelConfig::Pretrained { name, revision, path };
            Room::of(&ExperimentConfig { model, ..config.clone() }).unwrap()
        };
        // 3,468 MiB without a checkpoint being written (results/cpu.md), whose copies are 178 million
        // parameters and twice as many moments.
        let mbert = room("bert-base-multilingual-cased", "nowhere");
        let measured = 3468.0 * f64::from(1 << 20) + 3.0 * 4.0 * 178e6;
        assert!(mbert.memory > 0.9 * measured && mbert.memory < 1.3 * measured, "{mbert:?}");
        // Three checkpoints of three times the parameters, and a model.
        assert!((mbert.passing / (10.0 * 4.0 * 178e6) - 1.0).abs() < 0.02, "{mbert:?}");
        // 421 to 467 MiB (results/mini-full).
        let mini = room("models/mini", concat!(env!("CARGO_MANIFEST_DIR"), "/../models/mini"));
        assert!((380.0..600.0).contains(&(mini.memory / f64::from(1 << 20))), "{mini:?}");
    }
}
