use std::path::Path;

use serde_json::json;

use super::config::{bottleneck_config, bottleneck_json, in_words_of_file};
use super::{LoadOptions, write_tensors};
use crate::bundle::Bundle;
use crate::library_files::{renamed, write_json};
use crate::{PeftError, PeftModel};

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: [&str; 2] = ["adapter.safetensors", "pytorch_adapter.bin"];

impl PeftModel {
    /// Loads a bottleneck adapter from a folder or a zip archive, and returns its name here.
    pub fn load_adapter(
        &mut self,
        source: &Path,
        options: &LoadOptions,
    ) -> Result<String, PeftError> {
        let bundle = Bundle::open(source)?;
        let config = bundle.json(CONFIG)?;
        let refuse = |message: String| bundle.config_error(CONFIG, &message);
        self.check_model(&config).map_err(&refuse)?;
        let own_name = config["name"].as_str().ok_or_else(|| refuse("no `name`".into()))?;
        let name = options.load_as.clone().unwrap_or_else(|| own_name.to_owned());
        let layers = self.bert.num_hidden_layers;
        let mut bottleneck = bottleneck_config(&config, layers).map_err(&refuse)?;

        let (path, tensors) = bundle.tensors(&WEIGHTS)?;
        let tensors = renamed(tensors, &path, |key| {
            let key = current_name(key, own_name, &name);
            // With a LayerNorm of its own on the input, the file has it under two names.
            Some(key).filter(|key| !key.contains(".adapter_norm_before."))
        })?;
        let invertible = tensors.keys().any(|key| key.starts_with("bert.invertible_adapters."));
        if bottleneck.invertible.is_some() && !invertible {
            if config["type"] == "text_task" {
                bottleneck.invertible = None;
            } else {
                return Err(refuse(format!(
                    "the adapter should have an invertible block, but {} holds none",
                    path.display()
                )));
            }
        }
        match (&mut bottleneck.invertible, options.invertible_non_linearity) {
            (Some(invertible), Some(non_linearity)) => invertible.non_linearity = non_linearity,
            (None, Some(_)) => {
                return Err(refuse(
                    "the adapter has no invertible block, whose `invertible_non_linearity` is given; \
                     leave it as the file has it: \"preset\""
                        .into(),
                ));
            }
            (_, None) => {}
        }

        let mut extended = self.clone();
        extended.add_adapter(&name, &bottleneck, 0).map_err(|error| match error {
            PeftError::Value { .. } => refuse(in_words_of_file(&error)),
            other => other,
        })?;
        *self = extended.load_library_tensors(tensors, &path, |key| is_of(&name, key))?;
        Ok(name)
    }

    /// Writes an adapter into `folder`.
    pub fn save_adapter(&self, name: &str, folder: &Path) -> Result<(), PeftError> {
        self.without_lora()?;
        let adapter = self.adapters.adapter(name).ok_or_else(|| PeftError::Composition {
            setup: name.into(),
            message: self.adapters.no_adapter(name),
        })?;
        let config = adapter.config();
        if config.invertible.is_some_and(|block| block.non_linearity != config.non_linearity) {
            return Err(PeftError::Value {
                key: "invertible_non_linearity",
                message:
                    "AdapterHub has no place for an invertible block's own non-linearity, and \
                          would run it with the adapter's"
                        .into(),
            });
        }
        let meta = self.meta(Some(name), json!({"config": bottleneck_json(config)}));
        write_json(folder, CONFIG, &meta)?;
        write_tensors(folder, WEIGHTS, &self.library_tensors(|key| is_of(name, key)))
    }
}

/// Today's name of a tensor of the adapter `own_name`, which is loaded as `name`.
fn current_name(key: &str, own_name: &str, name: &str) -> String {
    let mut key = key.to_owned();
    for old in [
        "attention_text_task_adapters",
        "attention_text_lang_adapters",
        "layer_text_task_adapters",
        "layer_text_lang_adapters",
    ] {
        key = key.replace(old, "adapters");
    }
    key = key.replace("invertible_lang_adapters", "invertible_adapters");
    let key = key.replace(&format!("adapters.{own_name}."), &format!("adapters.{name}."));
    if key.starts_with("bert.") { key } else { format!("bert.{key}") }
}

/// Whether a tensor is of the adapter `name`.
fn is_of(name: &str, key: &str) -> bool {
    key.contains(&format!(".adapters.{name}."))
        || key.starts_with(&format!("bert.invertible_adapters.{name}."))
}
