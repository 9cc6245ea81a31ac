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

/// The keys in which two runs differ, the seed and what decides no result left out
/// ([`ExperimentConfig::of_any_seed`]).
pub fn factors(first: &ExperimentConfig, second: &ExperimentConfig) -> Vec<Factor> {
    let mut factors = differences(&first.of_any_seed(), &second.of_any_seed());
    // An emptied place of what only one of them reads: which file it is, its sha256 says.
    factors.retain(|Factor { first, second, .. }| {
        !matches!((first.as_str(), second.as_str()), ("", "–") | ("–", ""))
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

/// What makes two runs the same but for their seeds: the identity of
/// [`ExperimentConfig::of_any_seed`].
pub fn cell_identity(config: &ExperimentConfig) -> String {
    config.of_any_seed().identity()
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
    use std::path::Path;

    use nsmc_experiment::MethodConfig;
    use serde_json::json;

    use super::*;
    use crate::study::fabricated::{config, fusion, lora};
    use crate::study::{Collected, Plan};

    fn factor(key: &str, first: &str, second: &str) -> Factor {
        Factor { key: key.into(), first: first.into(), second: second.into() }
    }

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
    fn runs_that_are_kept_have_the_identities_of_when_they_were_made() {
        let results = concat!(env!("CARGO_MANIFEST_DIR"), "/../../results");
        let mut methods = BTreeSet::new();
        for name in ["mini", "mini-full", "mini-grid"] {
            let folder = Path::new(results).join(name);
            let plan = Plan::read(&folder.join(Plan::FILE)).unwrap();
            for planned in &plan.runs {
                let text = fs_err::read_to_string(Collected::of(&folder).record(&planned.run_id));
                let run: Value = serde_json::from_str(&text.unwrap()).unwrap();
                let config: ExperimentConfig =
                    serde_json::from_value(run["record"]["config"].clone()).unwrap();
                assert_eq!(config.identity(), planned.identity, "{}", planned.run_id);
                // The plan of mini-full is of before the test's batches were left out of a cell's.
                if name != "mini-full" || config.method.is_baseline() {
                    assert_eq!(cell_identity(&config), planned.cell, "{}", planned.run_id);
                }
                methods.insert(planned.method);
            }
        }
        assert!(methods.len() > 4, "{methods:?}");
    }

    #[test]
    fn a_source_that_only_one_run_has_differs_in_what_it_is_and_not_in_where_it_lies() {
        let paper = fusion(config("paper", 1000, 0));
        let mut other = paper.clone();
        if let MethodConfig::AdapterFusion(method) = &mut other.method {
            let mut stars = method.sources["ko"].clone();
            (stars.from, stars.path) = ("ko-stars".into(), "/elsewhere".into());
            method.sources.insert("stars".into(), stars);
        }
        let keys = |first, second| -> Vec<String> {
            factors(first, second).into_iter().map(|factor| factor.key).collect()
        };
        let expected =
            ["invertible_non_linearity", "sha256"].map(|key| format!("method.sources.stars.{key}"));
        assert_eq!(keys(&paper, &other), expected);
        assert_eq!(keys(&other, &paper), expected);
        // No place is what ends as the key of one does.
        let ranks = |rank: usize| {
            let mut config = lora(config("paper", 1000, 0), 64, 1.0);
            if let MethodConfig::Lora(method) = &mut config.method {
                method.rank_pattern.insert("layer.path".into(), rank);
            }
            config
        };
        assert_eq!(keys(&ranks(4), &ranks(8)), ["method.rank_pattern.layer.path"]);
    }

    #[test]
    fn what_reads_the_same_may_differ_all_the_same() {
        let [one, two] = [1 << 53, (1 << 53) + 1].map(|seed| config("paper", 1000, seed));
        let seeds = factor("seed", "9007199254740992", "9007199254740993");
        assert_eq!(differences(&one, &two), [seeds]);
        let found = differences(
            &json!({ "label": "1", "labels": ["1"], "none": "–", "same": 1.0 }),
            &json!({ "label": 1, "labels": [1], "same": 1.0 }),
        );
        let expected = [
            factor("label", "\"1\"", "1"),
            factor("labels", "[\"1\"]", "[1]"),
            factor("none", "\"–\"", "–"),
        ];
        assert_eq!(found, expected);
    }
}
