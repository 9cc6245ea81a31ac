//! PEFT's files: `adapter_config.json` and `adapter_model.safetensors` (or `.bin`).
//!
//! Deviation: PEFT passes over missing and surplus tensors and over options it does not know; here
//! all of them are errors, but for options that are off.

use std::path::Path;

use nsmc_bert::Tensors;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::adapterhub::{write, write_safetensors};
use crate::bundle::Bundle;
use crate::{Bias, LoraConfig, LoraSite, PeftError, PeftModel, TargetModules};

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";
/// The library version whose files are written.
const VERSION: &str = "0.21.2";
const PREFIX: &str = "base_model.model.";
/// What PEFT saves whole for a sequence classifier.
const HEADS: [&str; 2] = ["classifier", "score"];

/// Options that change the result and that are not implemented; each is off in these values.
const OFF: [(&str, &[&str]); 20] = [
    ("alora_invocation_tokens", &["null"]),
    ("arrow_config", &["null"]),
    ("corda_config", &["null"]),
    ("eva_config", &["null"]),
    ("fan_in_fan_out", &["null", "false"]),
    ("kasa_config", &["null"]),
    ("layer_replication", &["null"]),
    ("layers_pattern", &["null", "[]", "\"layer\"", "[\"layer\"]"]),
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
    // The others change the base's weights, which are not in these files.
    ("init_lora_weights", &["null", "true", "false", "\"gaussian\"", "\"orthogonal\""]),
];

impl PeftModel {
    /// Loads LoRA from a folder or a zip archive, and returns which biases it came with.
    ///
    /// A `config` that is given must put the same updates on the same layers, and is taken instead
    /// of the file's: its dropout counts.
    pub fn load_peft(
        &mut self,
        source: &Path,
        config: Option<&LoraConfig>,
    ) -> Result<Bias, PeftError> {
        let bundle = Bundle::open(source)?;
        let file = PeftFile::read(&bundle)?;
        if let Some(config) = config {
            let layers = self.bert.num_hidden_layers;
            let same = file.lora.layers(layers)? == config.layers(layers)?
                && file.lora.use_dora == config.use_dora;
            if !same {
                return Err(bundle.config_error(
                    CONFIG,
                    "expected the layers, ranks, scales and DoRA of the configuration; the file's \
                     `r`, `lora_alpha`, `target_modules`, patterns, `use_rslora` or `use_dora` \
                     differ from it",
                ));
            }
        }
        let (path, tensors) = bundle.tensors(&[WEIGHTS, "adapter_model.bin"])?;
        let mut extended = self.clone();
        extended.add_lora(config.unwrap_or(&file.lora), 0)?;
        *self = extended.load_library_tensors(saved_names(tensors), &path, |name| {
            file.has(name.strip_prefix(PREFIX).unwrap_or(name))
        })?;
        Ok(file.bias)
    }

    /// Writes LoRA into `folder`, with the classifier and whatever else of the base trained.
    ///
    /// `base_model` is what PEFT loads beneath it: a name on the Hugging Face hub or a path.
    pub fn save_peft(&self, base_model: &str, folder: &Path) -> Result<(), PeftError> {
        let lora = self.adapters.lora.as_ref().ok_or_else(|| PeftError::Value {
            key: "lora",
            message: "the model has no LoRA to be written in PEFT's form".into(),
        })?;
        let trains = self.trains();
        if trains.base {
            return Err(PeftError::Value {
                key: "trains",
                message: "the whole base trained; PEFT's form holds what LoRA adds to it".into(),
            });
        }
        let mut modules: Vec<String> = HEADS.map(str::to_owned).into();
        for (trained, module) in [
            (trains.pooler, &["pooler"][..]),
            (trains.layer_norm, &["LayerNorm"]),
            (
                trains.embeddings,
                &["word_embeddings", "position_embeddings", "token_type_embeddings"],
            ),
        ] {
            if trained {
                modules.extend(module.iter().map(|&module| module.to_owned()));
            }
        }
        let file = PeftFile { lora: lora.config().clone(), bias: trains.bias, modules };
        // PEFT takes no target that it also saves whole.
        let layers = lora.config().layers(self.bert.num_hidden_layers)?;
        let sites: Vec<String> = layers.into_iter().map(|layer| layer.site.name()).collect();
        if let Some(site) = sites.iter().find(|site| file.saves_whole(&format!("{site}."))) {
            return Err(PeftError::Value {
                key: "target_modules",
                message: format!(
                    "{site} has LoRA and trains as a whole, too; PEFT has no form for that"
                ),
            });
        }
        write(folder, CONFIG, &file.json(base_model, &sites))?;
        let tensors = self
            .library_tensors(|name| name.strip_prefix(PREFIX).is_some_and(|name| file.has(name)));
        write_safetensors(&folder.join(WEIGHTS), &tensors)
    }
}

/// What an `adapter_config.json` says.
struct PeftFile {
    lora: LoraConfig,
    bias: Bias,
    /// `modules_to_save`
    modules: Vec<String>,
}

impl PeftFile {
    fn read(bundle: &Bundle) -> Result<Self, PeftError> {
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
        let targets = |key: &str| match &config[key] {
            Value::Null => Ok(None),
            Value::String(text) if text == "all-linear" => Ok(Some(TargetModules::AllLinear)),
            Value::String(pattern) => Ok(Some(TargetModules::Regex(pattern.clone()))),
            other => parse(other).map(|list| Some(TargetModules::List(list))).ok_or_else(|| {
                format!("`{key}`: expected a list of names or a regular expression, found {other}")
            }),
        };
        let modules: Vec<String> = optional(config, "modules_to_save")?.unwrap_or_default();
        let lora = LoraConfig {
            rank: required(config, "r")?,
            alpha: required(config, "lora_alpha")?,
            dropout: optional(config, "lora_dropout")?.unwrap_or(0.0),
            // What PEFT puts on a BERT if it is not told.
            target_modules: targets("target_modules")?
                .unwrap_or_else(|| TargetModules::List(vec!["query".into(), "value".into()])),
            exclude_modules: targets("exclude_modules")?,
            layers_to_transform: match &config["layers_to_transform"] {
                Value::Number(_) => Some(vec![required(config, "layers_to_transform")?]),
                _ => optional(config, "layers_to_transform")?,
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
        let file = Self { lora, bias, modules };
        Ok(Self { lora: file.without_whole_modules(), ..file })
    }

    /// LoRA's configuration without the targets that are saved whole.
    fn without_whole_modules(&self) -> LoraConfig {
        let whole: Vec<String> = LoraSite::all(0)
            .map(LoraSite::name)
            .filter(|name| self.saves_whole(&format!("{name}.")))
            .collect();
        let mut lora = self.lora.clone();
        match &mut lora.exclude_modules {
            Some(TargetModules::List(excluded)) => excluded.extend(whole),
            None if !whole.is_empty() => lora.exclude_modules = Some(TargetModules::List(whole)),
            _ => {}
        }
        lora
    }

    /// Whether a tensor, named without the prefix, is in the weights file.
    fn has(&self, name: &str) -> bool {
        name.contains(".lora_")
            || match self.bias {
                Bias::None => false,
                Bias::All => name.ends_with(".bias"),
                Bias::LoraOnly => name.ends_with(".base_layer.bias"),
            }
            || self.saves_whole(name)
    }

    fn saves_whole(&self, name: &str) -> bool {
        let name = format!(".{name}");
        self.modules.iter().any(|module| name.contains(&format!(".{module}.")))
    }

    fn json(&self, base_model: &str, sites: &[String]) -> Value {
        let lora = &self.lora;
        let targets = |targets: &TargetModules| match targets {
            TargetModules::List(names) => json!(names),
            TargetModules::Regex(pattern) => json!(pattern),
            TargetModules::AllLinear => json!(sites),
        };
        json!({
            "alpha_pattern": lora.alpha_pattern,
            "auto_mapping": null,
            "base_model_name_or_path": base_model,
            "bias": self.bias,
            "exclude_modules": lora.exclude_modules.as_ref().map(targets),
            "fan_in_fan_out": false,
            "inference_mode": true,
            "init_lora_weights": true,
            "layer_replication": null,
            "layers_pattern": null,
            "layers_to_transform": lora.layers_to_transform,
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
            "revision": null,
            "target_modules": targets(&lora.target_modules),
            "target_parameters": null,
            "task_type": "SEQ_CLS",
            "trainable_token_indices": null,
            "use_dora": lora.use_dora,
            "use_qalora": false,
            "use_rslora": lora.use_rslora,
        })
    }
}

/// Tensors by the names under which PEFT saves them today.
///
/// A state dict that was saved by hand names the adapter, and in memory a module that is saved whole
/// has its copy beside the original.
fn saved_names(tensors: Tensors) -> Tensors {
    let mut saved = Tensors::new();
    for (name, tensor) in tensors {
        if name.contains(".original_module.") {
            continue;
        }
        let mut name = name.replace(".modules_to_save.", ".").replace(".default.", ".");
        for end in [".default", ".lora_magnitude_vector.weight"] {
            if name.ends_with(end) {
                name.truncate(name.rfind('.').expect("the end has a dot"));
            }
        }
        saved.insert(name, tensor);
    }
    saved
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
            ("trainable_token_indices", json!([1])),
            ("bias", json!("some")),
            ("r", json!("four")),
            ("target_modules", json!(7)),
        ] {
            let message = PeftFile::from_json(&config(key, value)).err().unwrap();
            assert!(message.starts_with(&format!("`{key}`")), "{message}");
        }
        assert!(PeftFile::from_json(&config("a_new_key", json!(1))).is_ok());
        let missing = json!({"peft_type": "LORA", "lora_alpha": 8});
        assert_eq!(PeftFile::from_json(&missing).err().unwrap(), "`r`: missing");
    }

    #[test]
    fn a_module_that_is_saved_whole_is_no_target() {
        let mut all = config("target_modules", json!("all-linear"));
        all["modules_to_save"] = json!(["classifier", "pooler"]);
        let file = PeftFile::from_json(&all).unwrap();
        let layers = file.lora.layers(2).unwrap();
        assert_eq!(layers.len(), 2 * 6);
        assert!(file.has("bert.pooler.dense.weight") && file.has("classifier.bias"));
        assert!(!file.has("bert.embeddings.LayerNorm.weight"));
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
    }
}
