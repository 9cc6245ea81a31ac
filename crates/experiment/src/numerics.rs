use crate::reader::Reader;
use crate::{ExperimentConfig, PretrainingConfig};

/// A change of this program after which some configurations come to other numbers.
struct Change {
    /// [`ExperimentConfig::numerics`] from then on, of the trainings that it touches.
    numerics: u32,
    en: &'static str,
    ko: &'static str,
    touches: fn(&Trained<'_>) -> bool,
}

/// In their order. A mistake in the mathematics belongs here, a sum in another order does not.
const CHANGES: [Change; 1] = [Change {
    numerics: 2,
    en: "biases and LayerNorm parameters no longer decay",
    ko: "바이어스와 LayerNorm에는 weight decay를 적용하지 않음",
    touches: |trained| trained.weight_decay() > 0.0,
}];

/// What a change may touch.
enum Trained<'a> {
    Run(&'a ExperimentConfig),
    Pretraining(&'a PretrainingConfig),
}

impl Trained<'_> {
    /// That of AdamW; 0 for a baseline, which has no parameters.
    fn weight_decay(&self) -> f64 {
        match self {
            Self::Run(config) if config.method.is_baseline() => 0.0,
            Self::Run(config) => config.training.weight_decay,
            Self::Pretraining(config) => config.training.weight_decay,
        }
    }

    fn todays(&self) -> u32 {
        let touching = CHANGES.iter().filter(|change| (change.touches)(self));
        touching.map(|change| change.numerics).max().unwrap_or(FIRST)
    }

    fn changed_since(&self, numerics: u32) -> Vec<(&'static str, &'static str)> {
        CHANGES
            .iter()
            .filter(|change| change.numerics > numerics && (change.touches)(self))
            .map(|change| (change.en, change.ko))
            .collect()
    }
}

impl ExperimentConfig {
    /// The [`Self::numerics`] of a run that this program makes.
    pub fn todays_numerics(&self) -> u32 {
        Trained::Run(self).todays()
    }

    /// What was changed since the run's program, of what touches it, in English and in Korean.
    pub fn changed_since(&self) -> Vec<(&'static str, &'static str)> {
        Trained::Run(self).changed_since(self.numerics)
    }
}

impl PretrainingConfig {
    /// The [`Self::numerics`] of a pre-training that this program makes.
    pub fn todays_numerics(&self) -> u32 {
        Trained::Pretraining(self).todays()
    }

    /// What was changed since its program, of what touches it, in English and in Korean.
    pub fn changed_since(&self) -> Vec<(&'static str, &'static str)> {
        Trained::Pretraining(self).changed_since(self.numerics)
    }
}

/// Of programs before every change.
pub(crate) const FIRST: u32 = 1;

/// What a record means that names no numerics.
pub(crate) fn first() -> u32 {
    FIRST
}

pub(crate) fn read(reader: &mut Reader<'_>) -> u32 {
    match reader.has("numerics") {
        true => reader.within("numerics", FIRST..),
        false => FIRST,
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
pub(crate) fn is_first(numerics: &u32) -> bool {
    *numerics == FIRST
}
