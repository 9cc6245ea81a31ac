use std::collections::BTreeMap;
use std::fmt;

use fancy_regex::Regex;
use nsmc_bert::{EmbeddingSite, LinearSite};
use serde::{Deserialize, Serialize};

use crate::{LoraConfig, PeftError};

/// Which layers LoRA is put on, as PEFT's `target_modules`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TargetModules {
    /// Names: a layer whose full name is one, or ends in `.` and one.
    List(Vec<String>),
    /// A regular expression for the whole name.
    Regex(String),
    /// `"all-linear"`: every linear layer but the classifier; the pooler's among them. It can be
    /// targeted, not excluded.
    AllLinear,
}

/// A layer that LoRA can be put on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LoraSite {
    /// A linear layer.
    Linear(LinearSite),
    /// An embedding table.
    Embedding(EmbeddingSite),
}

impl LoraSite {
    /// Every layer of a classifier, in transformers' order.
    pub fn all(num_hidden_layers: usize) -> impl Iterator<Item = Self> {
        EmbeddingSite::ALL
            .into_iter()
            .map(Self::Embedding)
            .chain(LinearSite::all(num_hidden_layers).map(Self::Linear))
    }

    /// The layer's name in transformers.
    pub fn name(self) -> String {
        match self {
            Self::Linear(site) => site.name(),
            Self::Embedding(site) => site.name().into(),
        }
    }

    fn layer(self) -> Option<usize> {
        match self {
            Self::Linear(
                LinearSite::Query(layer)
                | LinearSite::Key(layer)
                | LinearSite::Value(layer)
                | LinearSite::AttentionOutput(layer)
                | LinearSite::Intermediate(layer)
                | LinearSite::Output(layer),
            ) => Some(layer),
            _ => None,
        }
    }
}

impl TargetModules {
    /// Whether these, which stand at `key`, take a layer of this name.
    pub(crate) fn matches(
        &self,
        key: &'static str,
        site: LoraSite,
        name: &str,
    ) -> Result<bool, PeftError> {
        match self {
            Self::List(targets) => Ok(targets.iter().any(|target| is_end(target, name))),
            Self::Regex(pattern) => full_match(key, pattern, pattern, name),
            Self::AllLinear => {
                Ok(matches!(site, LoraSite::Linear(site) if site != LinearSite::Classifier))
            }
        }
    }

    /// Each name of a list by itself.
    fn singly(&self) -> Vec<Self> {
        match self {
            Self::List(names) => names.iter().map(|name| Self::List(vec![name.clone()])).collect(),
            other => vec![other.clone()],
        }
    }

    fn matches_any(&self, key: &'static str, num_hidden_layers: usize) -> Result<bool, PeftError> {
        for site in LoraSite::all(num_hidden_layers) {
            if self.matches(key, site, &site.name())? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What may have been meant by targets that match nothing.
    fn hint(&self, num_hidden_layers: usize) -> String {
        let Self::Regex(text) = self else { return String::new() };
        let hint = ": a string is a regular expression for the whole name";
        let name = Self::List(vec![text.clone()]);
        match name.matches_any("target_modules", num_hidden_layers) {
            Ok(true) => format!("{hint}; layers with this name are {name}"),
            _ => hint.into(),
        }
    }
}

/// Whether a name of a list takes a layer: it is the layer's, or the end of it.
pub(crate) fn is_end(target: &str, name: &str) -> bool {
    name.strip_suffix(target).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// The layers of a model that are targeted, in transformers' order.
///
/// `layers_to_transform` keeps of a list's matches those in these encoder layers. Layers that are
/// excluded are left out, whatever matches them.
pub(crate) fn target_sites(
    targets: &TargetModules,
    exclude: Option<&TargetModules>,
    layers_to_transform: Option<&[usize]>,
    num_hidden_layers: usize,
) -> Result<Vec<LoraSite>, PeftError> {
    if layers_to_transform.is_some() && !matches!(targets, TargetModules::List(_)) {
        return Err(PeftError::Value {
            key: "layers_to_transform",
            message: "expected `target_modules` to be a list".into(),
        });
    }
    if exclude == Some(&TargetModules::AllLinear) {
        return Err(PeftError::Value {
            key: "exclude_modules",
            message: "expected names or a regular expression, found \"all-linear\", which is for \
                      `target_modules`"
                .into(),
        });
    }
    let mut sites = Vec::new();
    for site in LoraSite::all(num_hidden_layers) {
        let name = site.name();
        if targets.matches("target_modules", site, &name)? {
            sites.push((site, name));
        }
    }
    if sites.is_empty() {
        return Err(PeftError::NoTarget {
            targets: targets.to_string(),
            hint: targets.hint(num_hidden_layers),
            candidates: LoraSite::all(num_hidden_layers).map(LoraSite::name).collect(),
        });
    }
    if let Some(layers) = layers_to_transform {
        sites.retain(|(site, name)| {
            // As in PEFT, a layer that is named in full is taken whatever encoder layer it is in.
            let exact = matches!(targets, TargetModules::List(names) if names.contains(name));
            exact || site.layer().is_some_and(|layer| layers.contains(&layer))
        });
        if sites.is_empty() {
            return Err(PeftError::Value {
                key: "layers_to_transform",
                message: format!(
                    "no layer that `target_modules` = {targets} matches is in the encoder layers \
                     {layers:?}; the model has 0 to {}",
                    num_hidden_layers.saturating_sub(1)
                ),
            });
        }
    }
    let mut kept = Vec::new();
    for (site, name) in sites {
        let excluded = match exclude {
            Some(exclude) => exclude.matches("exclude_modules", site, &name)?,
            None => false,
        };
        if !excluded {
            kept.push(site);
        }
    }
    match exclude {
        Some(exclude) if kept.is_empty() => Err(PeftError::Value {
            key: "exclude_modules",
            message: format!("{exclude} leaves out every layer that is targeted"),
        }),
        _ => Ok(kept),
    }
}

impl LoraConfig {
    /// The entries of this configuration that have no effect on a model of `num_hidden_layers` layers
    /// and so may be misspelt: for each its key and what it fails to match. They are no errors, since
    /// PEFT passes over them, too.
    pub fn without_effect(
        &self,
        num_hidden_layers: usize,
    ) -> Result<Vec<(&'static str, String)>, PeftError> {
        let mut found = Vec::new();
        let chosen = [
            ("target_modules", Some(&self.target_modules)),
            ("exclude_modules", self.exclude_modules.as_ref()),
        ];
        for (key, modules) in chosen {
            let Some(modules) = modules else { continue };
            for single in modules.singly() {
                if !single.matches_any(key, num_hidden_layers)? {
                    found.push((key, format!("no layer matches {single}")));
                }
            }
        }
        for layer in self.layers_to_transform.iter().flatten() {
            if *layer >= num_hidden_layers {
                let last = num_hidden_layers.saturating_sub(1);
                let message = format!("the model has the layers 0 to {last}, not {layer}");
                found.push(("layers_to_transform", message));
            }
        }
        let targeted: Vec<String> =
            self.layers(num_hidden_layers)?.iter().map(|layer| layer.site.name()).collect();
        let ranks = self.rank_pattern.keys().map(|pattern| ("rank_pattern", pattern));
        let alphas = self.alpha_pattern.keys().map(|pattern| ("alpha_pattern", pattern));
        for (key, pattern) in ranks.chain(alphas) {
            let mut matches = false;
            for name in &targeted {
                matches = matches || matches_end(key, pattern, name)?;
            }
            if !matches {
                found.push((key, format!("no layer that is targeted matches {pattern:?}")));
            }
        }
        Ok(found)
    }
}

/// The value of the first pattern that matches a layer's name or the end of it: PEFT's
/// `rank_pattern` and `alpha_pattern`.
///
/// Deviation: PEFT takes the first as they stand, here it is the first of the sorted. PEFT writes its
/// files sorted, so that the two are the same but for patterns that overlap and that a person wrote in
/// another order.
pub(crate) fn pattern_value<T: Copy>(
    key: &'static str,
    patterns: &BTreeMap<String, T>,
    name: &str,
) -> Result<Option<T>, PeftError> {
    for (pattern, &value) in patterns {
        if matches_end(key, pattern, name)? {
            return Ok(Some(value));
        }
    }
    Ok(None)
}

/// As Python's `re.match(rf"(.*\.)?({pattern})$", name)`.
fn matches_end(key: &'static str, pattern: &str, name: &str) -> Result<bool, PeftError> {
    full_match(key, pattern, &format!(r"(.*\.)?({pattern})"), name)
}

/// Whether `pattern` matches all of `name`; `written` is what stands at `key`.
fn full_match(
    key: &'static str,
    written: &str,
    pattern: &str,
    name: &str,
) -> Result<bool, PeftError> {
    let error = |error: fancy_regex::Error| PeftError::Value {
        key,
        message: format!("`{written}` is no valid regular expression: {error}"),
    };
    Regex::new(&format!("^(?:{pattern})$")).map_err(error)?.is_match(name).map_err(error)
}

impl fmt::Display for TargetModules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::List(targets) => write!(f, "{targets:?}"),
            Self::Regex(pattern) => write!(f, "{pattern:?}"),
            Self::AllLinear => f.write_str("\"all-linear\""),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(targets: &[&str]) -> TargetModules {
        TargetModules::List(targets.iter().map(|&target| target.to_owned()).collect())
    }

    fn names(targets: &TargetModules) -> Vec<String> {
        let sites = target_sites(targets, None, None, 2).unwrap();
        sites.into_iter().map(LoraSite::name).collect()
    }

    #[test]
    fn a_list_matches_whole_names_and_ends() {
        assert_eq!(
            names(&list(&["query", "value"])),
            [
                "bert.encoder.layer.0.attention.self.query",
                "bert.encoder.layer.0.attention.self.value",
                "bert.encoder.layer.1.attention.self.query",
                "bert.encoder.layer.1.attention.self.value",
            ]
        );
        // "dense" is four kinds of layer; "output.dense" two.
        assert_eq!(names(&list(&["dense"])).len(), 2 * 3 + 1);
        assert_eq!(names(&list(&["output.dense"])).len(), 2 * 2);
        assert_eq!(names(&list(&["classifier", "word_embeddings"])).len(), 2);
        // Not the end of a word.
        assert!(target_sites(&list(&["uery"]), None, None, 2).is_err());
    }

    #[test]
    fn a_string_is_a_regular_expression_for_the_whole_name() {
        let pattern = TargetModules::Regex(r".*layer\.(?!0\.)\d+\..*\.(query|key)".into());
        assert_eq!(names(&pattern).len(), 2);
        assert!(target_sites(&TargetModules::Regex("query".into()), None, None, 2).is_err());
        let message = target_sites(&TargetModules::Regex("(".into()), None, None, 2).unwrap_err();
        assert!(message.to_string().contains("no valid regular expression"), "{message}");
    }

    #[test]
    fn all_linear_has_the_pooler_but_not_the_classifier() {
        let names = names(&TargetModules::AllLinear);
        assert_eq!(names.len(), 2 * 6 + 1);
        assert!(names.contains(&"bert.pooler.dense".to_owned()));
    }

    #[test]
    fn layers_and_exclusions_narrow_the_choice() {
        let sites = target_sites(&list(&["dense"]), None, Some(&[1]), 2).unwrap();
        assert_eq!(sites.len(), 3);
        let linear = Some(&TargetModules::AllLinear);
        let message = target_sites(&list(&["dense"]), linear, None, 2).unwrap_err().to_string();
        assert!(message.starts_with("`exclude_modules`: expected names"), "{message}");
        let exclude = list(&["pooler.dense"]);
        let sites = target_sites(&TargetModules::AllLinear, Some(&exclude), None, 2).unwrap();
        assert_eq!(sites.len(), 2 * 6);
        assert!(target_sites(&TargetModules::AllLinear, None, Some(&[1]), 2).is_err());
        let sites =
            target_sites(&list(&["query", "bert.pooler.dense"]), None, Some(&[0]), 2).unwrap();
        assert_eq!(sites.len(), 2);
    }

    #[test]
    fn no_match_names_the_candidates() {
        let message = target_sites(&list(&["q_proj"]), None, None, 1).unwrap_err().to_string();
        assert!(message.contains("[\"q_proj\"]"), "{message}");
        assert!(message.contains("\n  bert.encoder.layer.0.attention.self.query"), "{message}");
    }

    #[test]
    fn the_key_is_named_that_leaves_nothing() {
        let message = |targets: &TargetModules, exclude: &[&str], layers: Option<&[usize]>| {
            let exclude = Some(list(exclude));
            target_sites(targets, exclude.as_ref(), layers, 2).unwrap_err().to_string()
        };
        assert_eq!(
            message(&list(&["query"]), &[], Some(&[99])),
            "`layers_to_transform`: no layer that `target_modules` = [\"query\"] matches is in the \
             encoder layers [99]; the model has 0 to 1"
        );
        assert_eq!(
            message(&list(&["query"]), &["query", "key"], Some(&[1])),
            "`exclude_modules`: [\"query\", \"key\"] leaves out every layer that is targeted"
        );
        let regex = |text: &str| TargetModules::Regex(text.into());
        assert!(message(&regex("query"), &[], None).starts_with(
            "`target_modules` = \"query\": no layer matches: a string is a regular expression for \
             the whole name; layers with this name are [\"query\"]; the candidates are\n"
        ));
        let message = message(&regex(".*quer"), &[], None);
        assert!(message.contains("for the whole name; the candidates are"), "{message}");
    }

    #[test]
    fn what_has_no_effect_is_found() {
        let whole = LoraConfig::new(8, 16.0, &["query", "value"]);
        assert_eq!(whole.without_effect(2).unwrap(), []);
        let slips = LoraConfig {
            target_modules: list(&["query", "valeu"]),
            exclude_modules: Some(list(&["poler", "layer.0.attention.self.query"])),
            layers_to_transform: Some(vec![0, 1, 2]),
            rank_pattern: BTreeMap::from([("query".into(), 4), ("key".into(), 4)]),
            alpha_pattern: BTreeMap::from([("layer.0.attention.self.query".into(), 4.0)]),
            ..whole
        };
        let expected = [
            ("target_modules", "no layer matches [\"valeu\"]"),
            ("exclude_modules", "no layer matches [\"poler\"]"),
            ("layers_to_transform", "the model has the layers 0 to 1, not 2"),
            ("rank_pattern", "no layer that is targeted matches \"key\""),
            ("alpha_pattern", "no layer that is targeted matches \"layer.0.attention.self.query\""),
        ];
        assert_eq!(
            slips.without_effect(2).unwrap(),
            expected.map(|(key, message)| (key, message.to_owned()))
        );
    }

    #[test]
    fn a_pattern_matches_at_the_end_of_a_name() {
        let patterns =
            BTreeMap::from([("key".to_owned(), 2), (r"layer.2.output.dense".to_owned(), 3)]);
        let value = |name| pattern_value("rank_pattern", &patterns, name).unwrap();
        let bad = BTreeMap::from([("layer.(".to_owned(), 2)]);
        let message = pattern_value("alpha_pattern", &bad, "x").unwrap_err().to_string();
        assert!(message.starts_with("`alpha_pattern`: `layer.(` is no valid"), "{message}");
        assert_eq!(value("bert.encoder.layer.1.attention.self.key"), Some(2));
        assert_eq!(value("bert.encoder.layer.2.output.dense"), Some(3));
        assert_eq!(value("bert.encoder.layer.2.attention.output.dense"), None);
        assert_eq!(value("bert.encoder.layer.1.attention.self.query"), None);
    }

    #[test]
    fn of_patterns_that_overlap_the_first_of_the_sorted_counts() {
        let name = "bert.encoder.layer.1.attention.self.key";
        let value = |patterns: [(&str, f64); 2]| {
            let patterns = patterns.map(|(pattern, value)| (pattern.to_owned(), value));
            pattern_value("alpha_pattern", &BTreeMap::from(patterns), name).unwrap()
        };
        // As PEFT writes them into a file, and reads them from it.
        assert_eq!(value([("key", 2.5), ("self.key", 4.0)]), Some(2.5));
        assert_eq!(value([("self.key", 4.0), ("key", 2.5)]), Some(2.5));
        assert_eq!(value([("self.key", 4.0), ("query", 2.5)]), Some(4.0));
    }
}
