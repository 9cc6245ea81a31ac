use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::check_dropout;
use crate::lora_targets::{pattern_value, target_sites};
use crate::{LoraSite, PeftError, TargetModules};

/// Far above the width of any BERT: a larger rank is a mistake, or meant to take all memory.
const MAX_RANK: usize = 100_000;

/// LoRA's hyper-parameters. The names are PEFT's, but `r` is `rank` and `lora_alpha` is `alpha`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoraConfig {
    /// Rank of the update.
    pub rank: usize,
    /// The update is scaled by `alpha / rank`.
    pub alpha: f64,
    /// Dropout of the update's input.
    pub dropout: f64,
    /// Which layers.
    pub target_modules: TargetModules,
    /// Which layers not: names or a regular expression.
    pub exclude_modules: Option<TargetModules>,
    /// Takes of the layers that `target_modules`, a list, matches only those in these encoder layers;
    /// a layer that the list names in full is taken in any case.
    pub layers_to_transform: Option<Vec<usize>>,
    /// Ranks of single layers, by a regular expression for the end of their names; of several that
    /// match the first of the sorted counts.
    pub rank_pattern: BTreeMap<String, usize>,
    /// Alphas of single layers, likewise.
    pub alpha_pattern: BTreeMap<String, f64>,
    /// Scale by `alpha / √rank` instead (Kalajdzievski, 2023).
    pub use_rslora: bool,
    /// Learn the magnitude of each output apart from its direction (DoRA; Liu et al., 2024).
    pub use_dora: bool,
}

impl LoraConfig {
    /// PEFT's defaults on these layers.
    pub fn new(rank: usize, alpha: f64, targets: &[&str]) -> Self {
        Self {
            rank,
            alpha,
            dropout: 0.0,
            target_modules: TargetModules::List(targets.iter().map(|&t| t.to_owned()).collect()),
            exclude_modules: None,
            layers_to_transform: None,
            rank_pattern: BTreeMap::new(),
            alpha_pattern: BTreeMap::new(),
            use_rslora: false,
            use_dora: false,
        }
    }

    /// The layers that are targeted, each with its rank and its update's scale.
    pub fn layers(&self, num_hidden_layers: usize) -> Result<Vec<LoraLayer>, PeftError> {
        let sites = target_sites(
            &self.target_modules,
            self.exclude_modules.as_ref(),
            self.layers_to_transform.as_deref(),
            num_hidden_layers,
        )?;
        let value = |key, message| Err(PeftError::Value { key, message });
        check_dropout("dropout", self.dropout)?;
        let mut layers = Vec::new();
        for site in sites {
            let name = site.name();
            let rank =
                pattern_value("rank_pattern", &self.rank_pattern, &name)?.unwrap_or(self.rank);
            let alpha =
                pattern_value("alpha_pattern", &self.alpha_pattern, &name)?.unwrap_or(self.alpha);
            if !(1..=MAX_RANK).contains(&rank) {
                let message =
                    format!("expected a rank from 1 to {MAX_RANK} for {name}, found {rank}");
                return value("rank", message);
            }
            if !alpha.is_finite() {
                return value(
                    "alpha",
                    format!("expected a finite number for {name}, found {alpha}"),
                );
            }
            if self.use_dora && matches!(site, LoraSite::Embedding(_)) {
                return value(
                    "use_dora",
                    format!("DoRA of an embedding ({name}) is not implemented"),
                );
            }
            let divisor = if self.use_rslora { (rank as f64).sqrt() } else { rank as f64 };
            layers.push(LoraLayer { site, rank, scaling: alpha / divisor });
        }
        Ok(layers)
    }
}

/// A targeted layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LoraLayer {
    /// Which.
    pub site: LoraSite,
    /// Rank of its update.
    pub rank: usize,
    /// Scale of its update.
    pub scaling: f64,
}

impl LoraLayer {
    /// The `lora_alpha` by which loralib gives the update this scale. loralib always scales by
    /// `lora_alpha / r`, so that under rsLoRA, which scales by `alpha / √r`, it is another number than
    /// `alpha`.
    pub fn loralib_alpha(&self) -> f64 {
        let alpha = self.scaling * self.rank as f64;
        // `alpha / rank * rank` may miss `alpha` by its last bit, which nobody would type; twelve
        // digits are far more than the update's `f32` has.
        format!("{alpha:.11e}").parse().expect("a float that was written is read")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loralib_scales_by_another_alpha_under_rslora() {
        let alphas = |config: &LoraConfig| -> Vec<f64> {
            let layers = config.layers(1).unwrap();
            for layer in &layers {
                let theirs = layer.loralib_alpha() / layer.rank as f64;
                assert!((theirs / layer.scaling - 1.0).abs() < 1e-11, "{layer:?}");
            }
            layers.iter().map(LoraLayer::loralib_alpha).collect()
        };
        // 1 / 49 * 49 is not 1.
        assert_eq!(alphas(&LoraConfig::new(49, 1.0, &["query"])), [1.0]);
        let config = LoraConfig {
            use_rslora: true,
            rank_pattern: BTreeMap::from([("value".into(), 4)]),
            ..LoraConfig::new(16, 8.0, &["query", "value"])
        };
        // 8 / √16 * 16 and 8 / √4 * 4.
        assert_eq!(alphas(&config), [32.0, 16.0]);
    }
}
