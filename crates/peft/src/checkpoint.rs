use std::collections::BTreeSet;
use std::path::Path;

use nsmc_bert::read_tensors;
use serde::{Deserialize, Serialize};

use crate::bundle::Bundle;
use crate::error::check_dropout;
use crate::library_files::{write_json, write_safetensors};
use crate::{
    BottleneckConfig, ClassificationHead, Composition, FusionConfig, LoraConfig, PeftError,
    PeftModel, Trains,
};

const CONFIG: &str = "peft.json";
const WEIGHTS: &str = "model.safetensors";

/// What is added to a base model: everything that rebuilds a [`PeftModel`] from it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Additions {
    adapters: Vec<NamedAdapter>,
    fusions: Vec<NamedFusion>,
    lora: Option<LoraConfig>,
    head: Option<String>,
    /// The head's own dropout; checkpoints whose head has none do not name it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    head_dropout: Option<f64>,
    active: Option<String>,
    trains: Trains,
    replaced: BTreeSet<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct NamedAdapter {
    name: String,
    config: BottleneckConfig,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct NamedFusion {
    adapters: Vec<String>,
    config: FusionConfig,
}

impl PeftModel {
    /// Writes into `folder` what makes this model of its base: `peft.json` says what was added, and
    /// `model.safetensors` holds the weights of all that, frozen adapters included, and the classifier.
    /// Of the base beneath the classifier (embeddings, encoder, pooler) it holds what trains and what
    /// came with a file. [`Self::load_checkpoint`] puts all of it on the same base again.
    pub fn save_checkpoint(&self, folder: &Path) -> Result<(), PeftError> {
        let adapters = &self.adapters;
        let additions = Additions {
            adapters: adapters
                .bottlenecks
                .iter()
                .map(|adapter| NamedAdapter {
                    name: adapter.name().into(),
                    config: adapter.config().clone(),
                })
                .collect(),
            fusions: adapters
                .fusions
                .iter()
                .map(|fusion| NamedFusion {
                    adapters: fusion.name().split(',').map(str::to_owned).collect(),
                    config: fusion.config(),
                })
                .collect(),
            lora: adapters.lora.as_ref().map(|lora| lora.config().clone()),
            head: self.head.is_some().then(|| self.head_name.clone()),
            head_dropout: self.head.as_ref().and_then(ClassificationHead::dropout_prob),
            active: adapters.active().map(Composition::to_string),
            trains: self.trains().clone(),
            replaced: self.replaced.clone(),
        };
        let saved = self.saved_names();
        let json = serde_json::to_value(additions).expect("additions are representable in JSON");
        write_json(folder, CONFIG, &json)?;
        let tensors = self.library_tensors(|name| saved.contains(name));
        write_safetensors(&folder.join(WEIGHTS), &tensors)
    }

    /// Whether a folder holds what [`Self::save_checkpoint`] writes.
    pub fn is_checkpoint(folder: &Path) -> bool {
        folder.join(CONFIG).is_file()
    }

    /// Puts the additions of a folder on a base without any, with the weights that trained.
    pub fn load_checkpoint(self, folder: &Path) -> Result<Self, PeftError> {
        let bundle = Bundle::open(folder)?;
        let additions: Additions = serde_json::from_value(bundle.json(CONFIG)?)
            .map_err(|error| bundle.config_error(CONFIG, &error.to_string()))?;
        let mut model = self;
        for adapter in &additions.adapters {
            model.add_adapter(&adapter.name, &adapter.config, 0)?;
        }
        for fusion in additions.fusions {
            model.add_fusion(&Composition::fuse(fusion.adapters), fusion.config, 0)?;
        }
        if let Some(lora) = &additions.lora {
            model.add_lora(lora, 0)?;
        }
        if let Some(head) = &additions.head {
            if let Some(dropout) = additions.head_dropout {
                check_dropout("head_dropout", dropout)?;
            }
            model.put_head(head, additions.head_dropout, 0);
        }
        let active = additions.active.as_deref().map(Composition::parse).transpose()?;
        model.set_active(active)?;
        let mut model = model.train_only(additions.trains);
        model.replaced = additions.replaced;
        let saved = model.saved_names();
        let path = folder.join(WEIGHTS);
        let tensors = read_tensors(&path)?;
        model.load_library_tensors(tensors, &path, |name| saved.contains(name))
    }

    /// The names in the library of the parameters that a checkpoint holds.
    fn saved_names(&self) -> BTreeSet<String> {
        let trainable: BTreeSet<String> = self.trainable_paths().into_iter().collect();
        let saved = crate::parameters::paths(self).into_iter().filter(|path| {
            !path.starts_with("base.bert.")
                || trainable.contains(path)
                || self.replaced.contains(path)
        });
        saved.map(|path| self.library_name(&path)).collect()
    }
}
