use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::CONFIG;
use crate::bundle::Bundle;
use crate::lora_targets::is_end;
use crate::{Bias, LoraConfig, LoraSite, PeftError, TargetModules};

/// The library version whose files are written.
const VERSION: &str = "0.21.2";

/// PEFT's name for the classification of texts.
pub(super) const TASK: &str = "SEQ_CLS";

/// What the file calls a key of [`LoraConfig`].
pub(super) fn key_in_file(key: &str) -> &str {
    match key {
        "rank" => "r",
        "alpha" => "lora_alpha",
        "dropout" => "lora_dropout",
        other => other,
    }
}

/// Options that change the result and that are not implemented; each is off in these values.
const OFF: [(&str, &[&str]); 18] = [
    ("alora_invocation_tokens", &["null"]),
    ("arrow_config", &["null"]),
    ("corda_config", &["null"]),
    ("kasa_config", &["null"]),
    ("layer_replication", &["null"]),
    // What names the encoder's layers, or nothing, which is the same.
    (
        "layers_pattern",
        &[
            "null",
            "[]",
            "\"\"",
            "\"layer\"",
            "[\"layer\"]",
            "\"encoder.layer\"",
            "[\"encoder.layer\"]",
        ],
    ),
    ("loftq_config", &["null", "{}"]),
    ("lora_bias", &["null", "false"]),
    ("lora_ga_config", &["null"]),
    ("megatron_config", &["null"]),
    ("monteclora_config", &["null"]),
    ("target_parameters", &["null", "[]"]),
    ("trainable_token_indices", &["null"]),
    ("use_bdlora", &["null", "false"]),
    ("use_qalora", &["null", "false"]),
    ("velora_config", &["null"]),
    ("ensure_weight_tying", &["null", "false"]),
    // These draw or compute what the files then hold. PiSSA, OLoRA, CorDA, LoftQ and LoRA-GA change
    // the base's weights, which are not in these files, and MiCA freezes `B`.
    ("init_lora_weights", &["null", "true", "false", "\"gaussian\"", "\"orthogonal\"", "\"eva\""]),
];

/// What an `adapter_config.json` says.
pub(super) struct PeftFile {
    /// As it is written; [`Self::lora()`] is what it means.
    pub(super) lora: LoraConfig,
    pub(super) bias: Bias,
    /// `modules_to_save`
    pub(super) modules: Vec<String>,
    /// `task_type`
    pub(super) task: Option<String>,
}

impl PeftFile {
    pub(super) fn read(bundle: &Bundle) -> Result<Self, PeftError> {
        let config = bundle.json(CONFIG)?;
        Self::from_json(&config).map_err(|message| bundle.config_error(CONFIG, &message))
    }

    fn from_json(config: &Value) -> Result<Self, String> {
        let kind = &config["peft_type"];
        if kind != "LORA" {
            return Err(format!("`peft_type`: expected \"LORA\", found {kind}"));
        }
        for (key, off) in OFF {
            let value = config[key].to_string();
            if !off.contains(&value.as_str()) {
                return Err(format!("`{key}`: {value} is not implemented"));
            }
        }
        let names = |key: &str| match &config[key] {
            Value::Null => Ok(None),
            Value::String(pattern) => Ok(Some(TargetModules::Regex(pattern.clone()))),
            other => parse(other).map(|list| Some(TargetModules::List(list))).ok_or_else(|| {
                format!("`{key}`: expected a list of names or a regular expression, found {other}")
            }),
        };
        let mut modules: Vec<String> = optional(config, "modules_to_save")?.unwrap_or_default();
        // PEFT adds them when it makes the model; early files do not name them.
        let task: Option<String> = optional(config, "task_type")?;
        if task.as_deref() == Some(TASK) {
            for head in super::HEADS.map(str::to_owned) {
                if !modules.contains(&head) {
                    modules.push(head);
                }
            }
        }
        let lora = LoraConfig {
            rank: required(config, "r")?,
            alpha: required(config, "lora_alpha")?,
            dropout: optional(config, "lora_dropout")?.unwrap_or(0.0),
            target_modules: match names("target_modules")? {
                Some(TargetModules::Regex(text)) if text == "all-linear" => {
                    TargetModules::AllLinear
                }
                Some(targets) => targets,
                // What PEFT puts on a BERT if it is not told.
                None => TargetModules::List(vec!["query".into(), "value".into()]),
            },
            // PEFT knows no keyword here: any text is a regular expression.
            exclude_modules: names("exclude_modules")?,
            // An empty list is all layers.
            layers_to_transform: match &config["layers_to_transform"] {
                Value::Number(_) => Some(vec![required(config, "layers_to_transform")?]),
                _ => optional(config, "layers_to_transform")?
                    .filter(|layers: &Vec<usize>| !layers.is_empty()),
            },
            rank_pattern: optional(config, "rank_pattern")?.unwrap_or_default(),
            alpha_pattern: optional(config, "alpha_pattern")?.unwrap_or_default(),
            use_rslora: optional(config, "use_rslora")?.unwrap_or(false),
            use_dora: optional(config, "use_dora")?.unwrap_or(false),
        };
        let bias = match config["bias"].as_str() {
            None | Some("none") => Bias::None,
            Some("all") => Bias::All,
            Some("lora_only") => Bias::LoraOnly,
            Some(other) => {
                return Err(format!(
                    "`bias`: expected \"none\", \"all\" or \"lora_only\", found \"{other}\""
                ));
            }
        };
        Ok(Self { lora, bias, modules, task })
    }

    /// LoRA's configuration for a model of so many layers. As in PEFT, what is saved whole is no
    /// target, nor is anything within it, whatever `exclude_modules` says beside that: the
    /// configuration has one place for both, so that they are the names of the layers there.
    pub(super) fn lora(&self, num_hidden_layers: usize) -> Result<LoraConfig, PeftError> {
        let mut excluded = Vec::new();
        for site in LoraSite::all(num_hidden_layers) {
            let name = site.name();
            let by_key = match &self.lora.exclude_modules {
                Some(exclude) => exclude.matches("exclude_modules", site, &name)?,
                None => false,
            };
            if by_key || self.saves_whole(&format!("{name}.")) {
                excluded.push(name);
            }
        }
        let exclude_modules = Some(TargetModules::List(excluded))
            .filter(|excluded| *excluded != TargetModules::List(Vec::new()));
        Ok(LoraConfig { exclude_modules, ..self.lora.clone() })
    }

    /// Whether a tensor, named without the prefix, is in the weights file.
    pub(super) fn has(&self, name: &str) -> bool {
        name.contains(".lora_")
            || match self.bias {
                Bias::None => false,
                Bias::All => name.ends_with(".bias"),
                Bias::LoraOnly => name.ends_with(".base_layer.bias"),
            }
            || self.saves_whole(name)
    }

    /// Whether a tensor is of a module that is saved whole.
    pub(super) fn saves_whole(&self, name: &str) -> bool {
        let name = format!(".{name}");
        self.modules.iter().any(|module| name.contains(&format!(".{module}.")))
    }

    /// `target_modules` by which PEFT adapts these layers and meets no other module: names that all
    /// are of these layers, as they are written, or else the layers in full.
    ///
    /// PEFT asks every module by its name, and refuses one that is no layer: a regular expression
    /// that fits here may take a LayerNorm there, too, as the name `output` does. A name that takes a
    /// layer takes nothing else, for it ends as a layer's does. And where `layers_to_transform` stands
    /// beside twenty names or more PEFT shortens these first, and then takes none of them to be in
    /// full.
    fn written_targets<'a>(&'a self, sites: &'a [String]) -> &'a [String] {
        match &self.lora.target_modules {
            TargetModules::List(names)
                if self.lora.layers_to_transform.is_none()
                    && names.iter().all(|name| sites.iter().any(|site| is_end(name, site))) =>
            {
                names
            }
            _ => sites,
        }
    }

    /// The file, of LoRA on a base model at a commit; `sites` are the layers that it is on.
    pub(super) fn json(&self, base_model: &str, revision: Option<&str>, sites: &[String]) -> Value {
        let lora = &self.lora;
        let exclude_modules = match &lora.exclude_modules {
            Some(TargetModules::List(names)) => json!(names),
            Some(TargetModules::Regex(pattern)) => json!(pattern),
            Some(TargetModules::AllLinear) | None => Value::Null,
        };
        json!({
            "alpha_pattern": lora.alpha_pattern,
            "auto_mapping": null,
            "base_model_name_or_path": base_model,
            "bias": self.bias,
            "exclude_modules": exclude_modules,
            "fan_in_fan_out": false,
            "inference_mode": true,
            "init_lora_weights": true,
            "layer_replication": null,
            "layers_pattern": null,
            "layers_to_transform": null,
            "loftq_config": {},
            "lora_alpha": lora.alpha,
            "lora_bias": false,
            "lora_dropout": lora.dropout,
            "megatron_config": null,
            "megatron_core": "megatron.core",
            "modules_to_save": self.modules,
            "peft_type": "LORA",
            "peft_version": VERSION,
            "r": lora.rank,
            "rank_pattern": lora.rank_pattern,
            "revision": revision,
            "target_modules": self.written_targets(sites),
            "target_parameters": null,
            "task_type": self.task,
            "trainable_token_indices": null,
            "use_dora": lora.use_dora,
            "use_qalora": false,
            "use_rslora": lora.use_rslora,
        })
    }
}

fn parse<T: DeserializeOwned>(value: &Value) -> Option<T> {
    serde_json::from_value(value.clone()).ok()
}

fn optional<T: DeserializeOwned>(config: &Value, key: &str) -> Result<Option<T>, String> {
    match &config[key] {
        Value::Null => Ok(None),
        value => serde_json::from_value(value.clone())
            .map(Some)
            .map_err(|error| format!("`{key}`: {value}: {error}")),
    }
}

fn required<T: DeserializeOwned>(config: &Value, key: &str) -> Result<T, String> {
    optional(config, key)?.ok_or_else(|| format!("`{key}`: missing"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(key: &str, value: Value) -> Value {
        let mut config = json!({"peft_type": "LORA", "r": 4, "lora_alpha": 8});
        config[key] = value;
        config
    }

    #[test]
    fn what_is_not_implemented_is_refused_by_name() {
        for (key, value) in [
            ("peft_type", json!("IA3")),
            ("use_qalora", json!(true)),
            ("layer_replication", json!([[0, 4]])),
            ("init_lora_weights", json!("pissa")),
            ("layers_pattern", json!("blocks")),
            ("trainable_token_indices", json!([1])),
            ("bias", json!("some")),
            ("r", json!("four")),
            ("target_modules", json!(7)),
        ] {
            let message = PeftFile::from_json(&config(key, value)).err().unwrap();
            assert!(message.starts_with(&format!("`{key}`")), "{message}");
        }
        let missing = json!({"peft_type": "LORA", "lora_alpha": 8});
        assert_eq!(PeftFile::from_json(&missing).err().unwrap(), "`r`: missing");
    }

    #[test]
    fn what_changes_no_result_is_taken() {
        for (key, value) in [
            ("a_new_key", json!(1)),
            ("init_lora_weights", json!("eva")),
            ("eva_config", json!({"rho": 2.0, "tau": 0.99, "whiten": false})),
            ("layers_pattern", json!("")),
            ("layers_pattern", json!("encoder.layer")),
            ("layers_pattern", json!(["encoder.layer"])),
            // PEFT sets it to false for a `torch.nn.Linear`.
            ("fan_in_fan_out", json!(true)),
        ] {
            let refused = PeftFile::from_json(&config(key, value)).err();
            assert_eq!(refused, None, "{key}");
        }
    }

    #[test]
    fn only_targets_may_be_all_linear() {
        let mut all = config("target_modules", json!("all-linear"));
        all["exclude_modules"] = json!("all-linear");
        let file = PeftFile::from_json(&all).unwrap();
        assert_eq!(file.lora.exclude_modules, Some(TargetModules::Regex("all-linear".into())));
        // As a regular expression it matches no layer.
        let layers = file.lora(2).unwrap().layers(2).unwrap();
        assert_eq!(layers.len(), 2 * 6 + 1);
        let sites: Vec<String> = layers.into_iter().map(|layer| layer.site.name()).collect();
        let written = file.json("base", None, &sites);
        assert_eq!(written["target_modules"], json!(sites));
        assert_eq!(written["exclude_modules"], json!("all-linear"));
    }

    #[test]
    fn targets_that_peft_reads_otherwise_are_written_in_full() {
        let in_full = |layers: std::ops::Range<usize>, modules: &[&str]| -> Vec<String> {
            layers
                .flat_map(|layer| {
                    modules.iter().map(move |name| format!("bert.encoder.layer.{layer}.{name}"))
                })
                .collect()
        };
        let attention = ["query", "key", "value"].map(|name| format!("attention.self.{name}"));
        let attention: Vec<&str> = attention.iter().map(String::as_str).collect();
        let query_and_value = in_full(0..12, &[attention[0], attention[2]]);
        let first = json!([0]);
        for (targets, layers_to_transform, expected) in [
            // Of twenty names or more PEFT takes the ends, and of these those in layer 0.
            (json!(query_and_value), first.clone(), query_and_value.clone()),
            (json!(["query"]), first, in_full(0..1, &attention[..1])),
            // These take modules, too, that are no layers.
            (
                json!(".*attention.*"),
                Value::Null,
                in_full(0..12, &[&attention[..], &["attention.output.dense"]].concat()),
            ),
            (json!(["key", "output", "LayerNorm"]), Value::Null, in_full(0..12, &attention[1..2])),
        ] {
            let mut given = config("target_modules", targets);
            given["layers_to_transform"] = layers_to_transform;
            given["rank_pattern"] = json!({"layer.0.attention.self.query": 2});
            let lora = PeftFile::from_json(&given).unwrap();
            let layers = lora.lora.layers(12).unwrap();
            let sites: Vec<String> = layers.iter().map(|layer| layer.site.name()).collect();
            assert_eq!(sites, expected);
            let written = lora.json("base", None, &sites);
            assert_eq!(written["target_modules"], json!(expected));
            assert_eq!(written["layers_to_transform"], Value::Null);
            let read = PeftFile::from_json(&written).unwrap();
            assert_eq!(read.lora.layers(12).unwrap(), layers);
        }
        let names = json!(["self.query", "bert.encoder.layer.0.attention.self.value"]);
        let kept = PeftFile::from_json(&config("target_modules", names.clone())).unwrap();
        let layers = kept.lora.layers(2).unwrap();
        let sites: Vec<String> = layers.into_iter().map(|layer| layer.site.name()).collect();
        assert_eq!(kept.json("base", None, &sites)["target_modules"], names);
    }

    #[test]
    fn a_module_that_is_saved_whole_is_no_target() {
        let mut all = config("target_modules", json!("all-linear"));
        all["modules_to_save"] = json!(["classifier", "pooler"]);
        let file = PeftFile::from_json(&all).unwrap();
        let layers = |file: &PeftFile, layers| file.lora(layers).unwrap().layers(layers).unwrap();
        assert_eq!(layers(&file, 2).len(), 2 * 6);
        assert!(file.has("bert.pooler.dense.weight") && file.has("classifier.bias"));
        assert!(!file.has("bert.embeddings.LayerNorm.weight"));

        // A module may hold layers, and one of the model's others begin as it does.
        let mut layer = config("modules_to_save", json!(["layer.1"]));
        for excluded in [json!(r".*\.layer\.2\..*value"), json!(["layer.2.attention.self.value"])] {
            layer["exclude_modules"] = excluded;
            let file = PeftFile::from_json(&layer).unwrap();
            let mut names = layers(&file, 12).into_iter().map(|layer| layer.site.name());
            assert!(!names.any(|name| name.contains(".layer.1.")));
            // Query and value of twelve layers, without both of one and one of another.
            assert_eq!(layers(&file, 12).len(), 2 * 12 - 2 - 1);
        }
        // Exclusions that are no regular expression are named.
        layer["exclude_modules"] = json!("(");
        let message = PeftFile::from_json(&layer).unwrap().lora(2).unwrap_err().to_string();
        assert!(message.starts_with("`exclude_modules`: `(` is no valid"), "{message}");
    }

    #[test]
    fn the_kinds_of_targets_are_told_apart() {
        let target = |value| PeftFile::from_json(&config("target_modules", value)).unwrap();
        assert_eq!(target(json!("all-linear")).lora.target_modules, TargetModules::AllLinear);
        let pattern = TargetModules::Regex(".*query".into());
        assert_eq!(target(json!(".*query")).lora.target_modules, pattern);
        assert_eq!(
            target(Value::Null).lora,
            LoraConfig { alpha: 8.0, ..LoraConfig::new(4, 8.0, &["query", "value"]) }
        );
        let one = PeftFile::from_json(&config("layers_to_transform", json!(1))).unwrap();
        assert_eq!(one.lora.layers_to_transform, Some(vec![1]));
        let all = PeftFile::from_json(&config("layers_to_transform", json!([]))).unwrap();
        assert_eq!(all.lora(3).unwrap().layers(3).unwrap().len(), 2 * 3);
    }
}
