//! PEFT's files: `adapter_config.json` and `adapter_model.safetensors` (or `.bin`).
//!
//! Options that change the result and that are not implemented are errors unless they are off; any
//! others are passed over.
//!
//! Deviation: PEFT passes over missing and surplus tensors; here both are errors.

mod config;

use std::collections::BTreeSet;
use std::path::Path;

use self::config::{PeftFile, TASK, key_in_file};
use crate::bundle::Bundle;
use crate::library_files::{renamed, write_json, write_safetensors};
use crate::{Bias, Lora, LoraConfig, PeftError, PeftModel};

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";
const PREFIX: &str = "base_model.model.";
/// What PEFT saves whole for a sequence classifier.
const HEADS: [&str; 2] = ["classifier", "score"];

impl PeftModel {
    /// Loads LoRA from a folder or a zip archive, and returns which biases it came with.
    ///
    /// Where a `config` is given, it is LoRA's from then on, its dropout among it. Layers, ranks,
    /// scales and DoRA must be those of the file.
    pub fn load_peft(
        &mut self,
        source: &Path,
        config: Option<&LoraConfig>,
    ) -> Result<Bias, PeftError> {
        let bundle = Bundle::open(source)?;
        let file = PeftFile::read(&bundle)?;
        let of_file = |error: PeftError| error.in_file(bundle.path(CONFIG), key_in_file);
        let layers = self.bert.num_hidden_layers;
        let lora = file.lora(layers).map_err(of_file)?;
        let found = lora.layers(layers).map_err(of_file)?;
        if let Some(config) = config
            && (found != config.layers(layers)? || lora.use_dora != config.use_dora)
        {
            return Err(bundle.config_error(
                CONFIG,
                "expected the layers, ranks, scales and DoRA of the configuration; the file's \
                 `r`, `lora_alpha`, `target_modules`, patterns, `use_rslora` or `use_dora` \
                 differ from it",
            ));
        }
        let (path, tensors) = bundle.tensors(&[WEIGHTS, "adapter_model.bin"])?;
        let mut extended = self.clone();
        match config {
            Some(config) => extended.add_lora(config, 0)?,
            None => extended.add_lora(&lora, 0).map_err(of_file)?,
        }
        // What is saved whole is the one that trained; with biases, PEFT writes that of before, too.
        let is_whole = |name: &str| name.contains(".modules_to_save.");
        let whole: BTreeSet<String> = tensors
            .keys()
            .filter(|name| is_whole(name))
            .filter_map(|name| saved_name(name))
            .collect();
        let tensors = renamed(tensors, &path, |name| {
            saved_name(name).filter(|saved| is_whole(name) || !whole.contains(saved))
        })?;
        let task = file.task.as_ref().filter(|task| *task != TASK);
        let classifier = format!("{PREFIX}classifier.");
        if let Some(task) = task
            && tensors.keys().any(|name| name.starts_with(&classifier))
        {
            return Err(bundle.config_error(
                CONFIG,
                &format!(
                    "`task_type`: expected \"{TASK}\" or null, found \"{task}\": the classifier in {} is \
                     that of another task, which neither name nor shape would tell; take LoRA that \
                     was trained to classify texts, or, to start from the updates alone, take the \
                     classifier out of the weights and of `modules_to_save`",
                    path.display()
                ),
            ));
        }
        *self = extended.load_library_tensors(tensors, &path, |name| {
            file.has(name.strip_prefix(PREFIX).unwrap_or(name))
        })?;
        Ok(file.bias)
    }

    /// The LoRA of a model that has nothing for which `form`, PEFT's or loralib's, has no place.
    pub(crate) fn only_lora(&self, form: &str) -> Result<&Lora, PeftError> {
        let refuse = |key, message| Err(PeftError::Value { key, message });
        let Some(lora) = &self.adapters.lora else {
            return refuse("lora", format!("the model has no LoRA to be written in {form} form"));
        };
        for (there, what) in
            [(self.head.is_some(), "a head"), (!self.adapters.bottlenecks.is_empty(), "adapters")]
        {
            if there {
                let what = format!("the model has {what} of AdapterHub's, too");
                return refuse("lora", format!("{what}, for which {form} form has no place"));
            }
        }
        if self.trains().base {
            let message = format!("the whole base trained; {form} form holds what LoRA adds to it");
            return refuse("trains", message);
        }
        Ok(lora)
    }

    /// Writes LoRA into `folder`, with the classifier and whatever else of the base trained. Targets
    /// that PEFT would read otherwise are written as the layers that they are here, in full.
    ///
    /// `base_model` is what PEFT loads beneath it: a name on the Hugging Face hub, where `revision` is
    /// its commit, or a path.
    pub fn save_peft(
        &self,
        base_model: &str,
        revision: Option<&str>,
        folder: &Path,
    ) -> Result<(), PeftError> {
        let (lora, trains) = (self.only_lora("PEFT's")?, self.trains());
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
        let task = Some(TASK.to_owned());
        let file = PeftFile { lora: lora.config().clone(), bias: trains.bias, modules, task };
        // PEFT takes no target that it also saves whole.
        let layers = lora.config().layers(self.bert.num_hidden_layers)?;
        let sites: Vec<String> = layers.into_iter().map(|layer| layer.site.name()).collect();
        if let Some(site) = sites.iter().find(|site| file.saves_whole(&format!("{site}."))) {
            return Err(PeftError::Value {
                key: "target_modules",
                message: format!(
                    "{site} has LoRA, and PEFT's form for classification saves it whole, too, which \
                     PEFT cannot load: leave it out of the targets, or export with `--format merged`"
                ),
            });
        }
        write_json(folder, CONFIG, &file.json(base_model, revision, &sites))?;
        let tensors = self
            .library_tensors(|name| name.strip_prefix(PREFIX).is_some_and(|name| file.has(name)));
        write_safetensors(&folder.join(WEIGHTS), &tensors)
    }
}

/// The name under which PEFT saves a tensor today.
///
/// A state dict that was saved by hand names the adapter, and in memory a module that is saved whole
/// has its copy beside the original.
fn saved_name(name: &str) -> Option<String> {
    if name.contains(".original_module.") {
        return None;
    }
    let mut name = name.replace(".modules_to_save.", ".").replace(".default.", ".");
    for end in [".default", ".lora_magnitude_vector.weight"] {
        if name.ends_with(end) {
            name.truncate(name.rfind('.').expect("the end has a dot"));
        }
    }
    Some(name)
}
