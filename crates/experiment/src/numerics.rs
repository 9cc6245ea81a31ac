use crate::ExperimentConfig;

/// A change of this program after which some configurations come to other numbers.
struct Change {
    /// [`ExperimentConfig::numerics`] from then on, of the runs that it touches.
    numerics: u32,
    en: &'static str,
    ko: &'static str,
    touches: fn(&ExperimentConfig) -> bool,
}

/// In their order. A mistake in the mathematics belongs here, a sum in another order does not.
const CHANGES: [Change; 1] = [Change {
    numerics: 2,
    en: "biases and LayerNorm parameters no longer decay",
    ko: "바이어스와 LayerNorm에는 weight decay를 적용하지 않음",
    touches: |config| !config.method.is_baseline() && config.training.weight_decay > 0.0,
}];

impl ExperimentConfig {
    /// The [`Self::numerics`] of a run that this program makes.
    pub fn todays_numerics(&self) -> u32 {
        let touching = CHANGES.iter().filter(|change| (change.touches)(self));
        touching.map(|change| change.numerics).max().unwrap_or(FIRST)
    }

    /// What was changed since the run's program, of what touches it, in English and in Korean.
    pub fn changed_since(&self) -> Vec<(&'static str, &'static str)> {
        CHANGES
            .iter()
            .filter(|change| change.numerics > self.numerics && (change.touches)(self))
            .map(|change| (change.en, change.ko))
            .collect()
    }
}

/// Of programs before every change.
pub(crate) const FIRST: u32 = 1;

/// What a record means that names no numerics.
pub(crate) fn first() -> u32 {
    FIRST
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
pub(crate) fn is_first(numerics: &u32) -> bool {
    *numerics == FIRST
}
