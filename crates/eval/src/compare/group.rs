use nsmc_experiment::ExperimentConfig;

use super::{Group, Member};
use crate::study::{cell_identity, factors};

/// Predictions and what is known of where they come from.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The method's name as the user gave it.
    pub name: Option<String>,
    /// The configuration of the run that made them; none for a file made elsewhere.
    pub config: Option<ExperimentConfig>,
    /// The predictions.
    pub member: Member,
}

/// What makes candidates one method.
#[derive(PartialEq)]
enum Key {
    Name(String),
    Runs(String),
}

/// Puts predictions into methods: those of one given name; runs that differ in their seeds alone;
/// files of one name. Runs of one method and size that differ in more are methods of their own, named
/// with what they differ in.
pub fn group(candidates: Vec<Candidate>) -> Vec<Group> {
    let mut keys: Vec<(Key, Option<ExperimentConfig>)> = Vec::new();
    let mut groups: Vec<Group> = Vec::new();
    for Candidate { name, config, member } in candidates {
        let has_seeds = !config.as_ref().is_some_and(|config| config.method.is_baseline());
        let (key, shown) = match (name, &config) {
            (Some(name), _) => (Key::Name(name.clone()), name),
            (None, Some(config)) => (
                Key::Runs(cell_identity(config)),
                format!("{}, {}", config.method.label(), config.data.train_size),
            ),
            (None, None) => (Key::Name(member.name.clone()), stem(&member.name)),
        };
        match keys.iter().position(|(known, _)| *known == key) {
            Some(index) => {
                let group = &mut groups[index];
                group.members.push(member);
                // Baselines that are given one name vary, if not with a seed.
                group.has_seeds = true;
            }
            None => {
                let config = config.filter(|_| matches!(key, Key::Runs(_)));
                keys.push((key, config));
                groups.push(Group { name: shown, members: vec![member], has_seeds });
            }
        }
    }
    let shown: Vec<String> = groups.iter().map(|group| group.name.clone()).collect();
    for (index, group) in groups.iter_mut().enumerate() {
        let Some(own) = &keys[index].1 else { continue };
        let mut different: Vec<String> = Vec::new();
        for (other, (_, config)) in keys.iter().enumerate() {
            let Some(config) = config.as_ref().filter(|_| shown[other] == shown[index]) else {
                continue;
            };
            for factor in factors(own, config) {
                let text = format!("{} {}", factor.key, factor.first);
                if !different.contains(&text) {
                    different.push(text);
                }
            }
        }
        if !different.is_empty() {
            group.name = format!("{} ({})", group.name, different.join(", "));
        }
    }
    groups
}

fn stem(path: &str) -> String {
    let path = std::path::Path::new(path);
    path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::study::fabricated::{config, lora, tfidf};

    fn run(config: ExperimentConfig) -> Candidate {
        let member =
            Member { name: config.run_id(), seed: Some(config.seed), outcomes: Vec::new() };
        Candidate { name: None, config: Some(config), member }
    }

    #[test]
    fn runs_of_one_label_that_differ_in_more_than_the_seed_are_two_methods() {
        let of = |seed, rate: f64| {
            let mut config = lora(config("", 1000, seed), 16, 16.0);
            config.training.learning_rate = rate;
            run(config)
        };
        let vanilla = config("", 1000, 0);
        let baseline = run(tfidf(vanilla.clone()));
        let candidates = vec![of(0, 2e-5), of(0, 1e-3), of(1, 2e-5), run(vanilla), baseline];
        let groups = group(candidates);
        let found: Vec<(&str, usize, bool)> = groups
            .iter()
            .map(|group| (group.name.as_str(), group.members.len(), group.has_seeds))
            .collect();
        let expected = [
            ("LoRA r=16, 1000 (training.learning_rate 2e-5)", 2, true),
            ("LoRA r=16, 1000 (training.learning_rate 1e-3)", 1, true),
            ("Vanilla, 1000", 1, true),
            ("Baseline: TF-IDF, logistic regression, 1000", 1, false),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_given_name_makes_one_method_of_what_bears_it() {
        let named = |name: Option<&str>, path: &str| Candidate {
            name: name.map(str::to_owned),
            config: None,
            member: Member { name: path.into(), seed: None, outcomes: Vec::new() },
        };
        let groups = group(vec![
            named(Some("theirs"), "a/x.csv"),
            named(None, "b/other.csv"),
            named(Some("theirs"), "c/y.csv"),
        ]);
        assert_eq!((groups[0].name.as_str(), groups[0].members.len()), ("theirs", 2));
        assert!(groups.iter().all(|group| group.has_seeds), "nothing says that they have none");
        assert_eq!((groups[1].name.as_str(), groups[1].members.len()), ("other", 1));
    }
}
