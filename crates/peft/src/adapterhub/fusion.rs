use std::path::Path;

use serde_json::{Value, json};

use super::config::{fusion_config, fusion_json};
use super::write_tensors;
use crate::bundle::Bundle;
use crate::library_files::write_json;
use crate::{Composition, PeftError, PeftModel};

const CONFIG: &str = "adapter_fusion_config.json";
const WEIGHTS: [&str; 2] = ["model_adapter_fusion.safetensors", "pytorch_model_adapter_fusion.bin"];

impl PeftModel {
    /// Loads a fusion layer from a folder or a zip archive, and returns its name. Its adapters must
    /// be there.
    pub fn load_fusion(&mut self, source: &Path) -> Result<String, PeftError> {
        let bundle = Bundle::open(source)?;
        let config = bundle.json(CONFIG)?;
        let refuse = |message: String| bundle.config_error(CONFIG, &message);
        self.check_model(&config).map_err(&refuse)?;
        let name = config["name"].as_str().ok_or_else(|| refuse("no `name`".into()))?.to_owned();
        let names: Vec<String> = match config["adapter_names"].as_array() {
            Some(names) => names.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            // Files of versions 1 and 2 have the names only joined.
            None => name.split(',').map(str::to_owned).collect(),
        };
        if names.join(",") != name {
            return Err(refuse(format!(
                "the fusion layer's own name `{name}` is not implemented; expected `{}`",
                names.join(",")
            )));
        }
        let fusion = fusion_config(&config["config"]).map_err(&refuse)?;
        let (path, tensors) = bundle.tensors(&WEIGHTS)?;
        let mut extended = self.clone();
        extended.add_fusion(&Composition::fuse(names), fusion, 0)?;
        let marker = marker(&name);
        // Saving "a" also saves "a,b": the library takes names by their beginnings.
        let own = |key: &str| key.contains(&marker);
        // Without query, key and value it also saves a layer that it never uses.
        let unused = format!("{marker}dense.");
        let plain = !(fusion.query || fusion.key || fusion.value);
        let tensors = tensors
            .into_iter()
            .filter(|(key, _)| own(key) && !(plain && key.contains(&unused)))
            .collect();
        *self = extended.load_library_tensors(tensors, &path, own)?;
        Ok(name)
    }

    /// Writes a fusion layer into `folder`.
    pub fn save_fusion(&self, name: &str, folder: &Path) -> Result<(), PeftError> {
        self.without_lora()?;
        let fusion = self.adapters.fusion(name).ok_or_else(|| PeftError::Composition {
            setup: name.into(),
            message: "there is no fusion layer of this name".into(),
        })?;
        let names: Vec<&str> = name.split(',').collect();
        let meta = json!({"adapter_names": names, "config": fusion_json(fusion.config())});
        write_json(folder, CONFIG, &self.meta(Some(name), meta))?;
        let marker = marker(name);
        write_tensors(folder, WEIGHTS, &self.library_tensors(|key| key.contains(&marker)))
    }
}

/// What the names of a fusion layer's tensors have in them.
fn marker(name: &str) -> String {
    format!(".adapter_fusion_layer.{name}.")
}
