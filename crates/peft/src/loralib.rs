//! State dicts of `loralib` (microsoft/LoRA): `….query.lora_A`, `….query.lora_B`, and what was put
//! beside them.
//!
//! They say neither `alpha` nor where LoRA belongs: both come from a configuration. loralib scales
//! by `lora_alpha / r` alone; [`LoraLayer::loralib_alpha`](crate::LoraLayer::loralib_alpha) is what
//! it is to be told.

use std::path::Path;

use nsmc_bert::read_tensors;

use crate::library_files::renamed;
use crate::{LoraConfig, PeftError, PeftModel, torch_file};

const PREFIX: &str = "base_model.model.";

impl PeftModel {
    /// Loads LoRA from a state dict: its `lora_` tensors, and of the base the classifier, biases and
    /// whatever else may train beside LoRA, if they are there (loralib's own `lora_state_dict` leaves
    /// the classifier out).
    pub fn load_loralib(&mut self, path: &Path, config: &LoraConfig) -> Result<(), PeftError> {
        let tensors = read_tensors(path)?;
        let mut extended = self.clone();
        extended.add_lora(config, 0)?;
        let tensors = renamed(tensors, path, |name| Some(extended.name_from_loralib(name)))?;
        let given: Vec<String> = tensors.keys().cloned().collect();
        *self = extended.load_library_tensors(tensors, path, |name| {
            let beside = name.ends_with(".bias")
                || [".classifier.", ".pooler.", ".LayerNorm.", "_embeddings."]
                    .iter()
                    .any(|part| name.contains(part));
            name.contains(".lora_") || (beside && given.iter().any(|given| given == name))
        })?;
        Ok(())
    }

    /// Writes LoRA and the classifier, and whatever else of the base trained, as a PyTorch file.
    pub fn save_loralib(&self, path: &Path) -> Result<(), PeftError> {
        let (lora, trains) = (self.only_lora("loralib's")?, self.trains());
        if lora.config().use_dora {
            return Err(PeftError::Value {
                key: "use_dora",
                message: "loralib has no DoRA; write PEFT's form".into(),
            });
        }
        let biased = |name: &str| match self.trains().bias {
            crate::Bias::None => false,
            crate::Bias::All => name.ends_with(".bias"),
            crate::Bias::LoraOnly => name.ends_with(".base_layer.bias"),
        };
        let own = |name: &str| {
            name.contains(".lora_")
                || name.contains(".classifier.")
                || biased(name)
                || (trains.pooler && name.contains(".pooler."))
                || (trains.layer_norm && name.contains(".LayerNorm."))
                || (trains.embeddings && name.contains("_embeddings."))
        };
        let tensors = self.library_tensors(own).into_iter();
        let tensors = tensors.map(|(name, data)| (name_in_loralib(&name), data)).collect();
        torch_file::write(path, &tensors)
    }

    /// The name in PEFT of a tensor of loralib.
    fn name_from_loralib(&self, name: &str) -> String {
        for (end, linear) in [(".lora_A", "lora_A.weight"), (".lora_B", "lora_B.weight")] {
            if let Some(layer) = name.strip_suffix(end) {
                return match layer.ends_with("_embeddings") {
                    true => format!("{PREFIX}{layer}.lora_embedding_{}", &end[end.len() - 1..]),
                    false => format!("{PREFIX}{layer}.{linear}"),
                };
            }
        }
        // A layer with LoRA keeps its own name in loralib; in PEFT it becomes a `base_layer`.
        self.base_name(name)
    }
}

fn name_in_loralib(name: &str) -> String {
    let name = name.strip_prefix(PREFIX).unwrap_or(name).replace(".base_layer.", ".");
    let name = name.replace(".lora_embedding_", ".lora_");
    let trimmed = name.strip_suffix(".weight").filter(|_| name.contains(".lora_"));
    trimmed.map_or(name.clone(), str::to_owned)
}
