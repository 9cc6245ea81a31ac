use std::collections::{BTreeMap, BTreeSet};

use nsmc_experiment::ExperimentConfig;
use serde::Serialize;
use serde_json::Value;

/// One key in which two configurations differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Factor {
    /// The dotted key, for instance `training.learning_rate`.
    pub key: String,
    /// Its value in the first; `–` where it has none.
    pub first: String,
    /// Its value in the second; `–` where it has none.
    pub second: String,
}

/// Keys that decide no result, or name a run: the recipe's label, the seed, places of files.
const LEFT_OUT: [&str; 4] = ["seed", "recipe", "training.save_steps", "evaluation.eval_batch_size"];

/// The keys in which two runs differ, the seed and what decides no result left out.
pub fn factors(first: &ExperimentConfig, second: &ExperimentConfig) -> Vec<Factor> {
    let mut factors = differences(first, second);
    factors.retain(|Factor { key, .. }| {
        let place = key.ends_with(".path") || key.ends_with(".from");
        !place && !LEFT_OUT.contains(&key.as_str())
    });
    // Which change of the program touches a run last follows from its other keys.
    if factors.len() > 1 {
        factors.retain(|factor| factor.key != "numerics");
    }
    factors
}

/// The leaves in which two configurations differ, by their dotted keys; a list is one leaf.
///
/// # Panics
///
/// If JSON cannot represent one.
pub fn differences<C: Serialize>(first: &C, second: &C) -> Vec<Factor> {
    let (first, second) = (leaves(first), leaves(second));
    let keys: BTreeSet<&String> = first.keys().chain(second.keys()).collect();
    let differing = keys.into_iter().filter(|key| first.get(*key) != second.get(*key));
    let factor = |key: &String| {
        let values = [first.get(key), second.get(key)];
        let [mut one, mut two] = values.map(|value| value.map_or_else(|| "–".into(), text));
        if one == two {
            // As a text and a number may: then with quotes.
            [one, two] = values.map(|value| value.map_or_else(|| "–".into(), Value::to_string));
        }
        Factor { key: key.clone(), first: one, second: two }
    };
    differing.map(factor).collect()
}

/// What makes two runs the same but for their seeds: [`ExperimentConfig::identity`] without it, and
/// without what decides no result.
pub fn cell_identity(config: &ExperimentConfig) -> String {
    let mut config = ExperimentConfig { seed: 0, ..config.clone() };
    // A run that was tested in other batches has another identity, and is the same experiment.
    config.evaluation.eval_batch_size = 0;
    config.identity()
}

fn leaves(config: &impl Serialize) -> BTreeMap<String, Value> {
    let mut leaves = BTreeMap::new();
    let value = serde_json::to_value(config).expect("a configuration is representable in JSON");
    collect(value, String::new(), &mut leaves);
    leaves
}

fn collect(value: Value, key: String, leaves: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(entries) => {
            for (name, value) in entries {
                let dot = if key.is_empty() { "" } else { "." };
                collect(value, format!("{key}{dot}{name}"), leaves);
            }
        }
        leaf => {
            leaves.insert(key, leaf);
        }
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(text).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Number(number) => match number.as_f64().filter(|_| number.is_f64()) {
            // As TOML has them: 16 for 16.0, and learning rates alike, 2e-5 and 1e-3.
            Some(float) if float != 0.0 && float.abs() < 1e-2 => format!("{float:e}"),
            Some(float) => float.to_string(),
            None => number.to_string(),
        },
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::study::fabricated::{config, lora};

    #[test]
    fn what_differs_is_named_and_seeds_and_places_are_not() {
        let paper = lora(config("paper", 1000, 0), 64, 1.0);
        let mut other = ExperimentConfig { seed: 7, recipe: "other".into(), ..paper.clone() };
        other.data.train.path = "/elsewhere".into();
        other.training.save_steps += 1;
        other.evaluation.eval_batch_size *= 2;
        assert_eq!(factors(&paper, &other), []);
        assert_eq!(cell_identity(&paper), cell_identity(&other));
        let mut other = lora(other, 64, 128.0);
        other.training.learning_rate = 1e-3;
        other.training.weight_decay = 0.01;
        let factor = |key: &str, first: &str, second: &str| Factor {
            key: key.into(),
            first: first.into(),
            second: second.into(),
        };
        let expected = [
            factor("method.alpha", "1", "128"),
            factor("training.learning_rate", "2e-5", "1e-3"),
            factor("training.weight_decay", "0", "0.01"),
        ];
        assert_eq!(factors(&paper, &other), expected);
        // The decay is what the program has another number for.
        other.numerics = 2;
        assert_eq!(factors(&paper, &other), expected);
        let of_now = ExperimentConfig { numerics: 2, ..paper.clone() };
        assert_eq!(factors(&paper, &of_now).len(), 1);
        assert_ne!(cell_identity(&paper), cell_identity(&other));
        let vanilla = config("paper", 1000, 0);
        assert!(factors(&vanilla, &paper).contains(&factor("method.rank", "–", "64")));
    }
    #[test]
    fn what_reads_the_same_may_differ_all_the_same() {
        let [one, two] = [1 << 53, (1 << 53) + 1].map(|seed| config("paper", 1000, seed));
        let seeds = Factor {
            key: "seed".into(),
            first: "9007199254740992".into(),
            second: "9007199254740993".into(),
        };
        assert_eq!(differences(&one, &two), [seeds]);
        let found = differences(
            &json!({ "label": "1", "labels": ["1"], "none": "–", "same": 1.0 }),
            &json!({ "label": 1, "labels": [1], "same": 1.0 }),
        );
        let factor = |key: &str, first: &str, second: &str| Factor {
            key: key.into(),
            first: first.into(),
            second: second.into(),
        };
        let expected = [
            factor("label", "\"1\"", "1"),
            factor("labels", "[\"1\"]", "[1]"),
            factor("none", "\"–\"", "–"),
        ];
        assert_eq!(found, expected);
    }
}
