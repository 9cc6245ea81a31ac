//! AdapterHub's files: adapters, heads, fusion layers and setups.
//!
//! Read are the current layout and that of 2020, folders and zip archives, safetensors and PyTorch
//! files. Written is the current layout, with each file in both forms, because the Python library
//! looks for the PyTorch one unless it is told otherwise.
//!
//! Deviation: the Python library passes over missing and surplus tensors; here both are errors.

mod adapter;
mod config;
mod fusion;
mod head;
mod setup;

pub use head::HeadKind;

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::TensorData;
use nsmc_bert::Activation;
use serde_json::{Value, json};

use crate::library_files::write_safetensors;
use crate::{PeftError, PeftModel, torch_file};

/// The library version whose files are written.
const VERSION: &str = "adapters.1.3.0";

/// How an adapter is loaded.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// The adapter's name here; its own if none is given.
    pub load_as: Option<String>,
    /// The non-linearity of its invertible block; the adapter's own if none is given, as AdapterHub
    /// does from version 2 on. Adapters of 2020 were trained with ReLU. For an adapter without such a
    /// block it is an error.
    pub invertible_non_linearity: Option<Activation>,
}

impl PeftModel {
    /// Whether a file was made for a model like this one.
    fn check_model(&self, config: &Value) -> Result<(), String> {
        if let Some(kind) = config["model_type"].as_str().filter(|&kind| kind != "bert") {
            return Err(format!("`model_type`: expected bert, found {kind}"));
        }
        let hidden_size = config["hidden_size"].as_u64();
        match hidden_size.filter(|&size| size != self.bert.hidden_size as u64) {
            Some(found) => Err(format!(
                "`hidden_size`: expected the model's {}, found {found}: it was made for another \
                 model",
                self.bert.hidden_size
            )),
            None => Ok(()),
        }
    }

    /// Refuses to write AdapterHub's form of a model whose names are PEFT's.
    fn without_lora(&self) -> Result<(), PeftError> {
        match self.adapters.lora {
            None => Ok(()),
            Some(_) => Err(PeftError::Value {
                key: "lora",
                message: "AdapterHub's form has no place for PEFT's LoRA, which the model has, too"
                    .into(),
            }),
        }
    }

    /// `fields` and what every configuration file of AdapterHub has.
    fn meta(&self, name: Option<&str>, mut fields: Value) -> Value {
        let class =
            if self.head.is_some() { "BertAdapterModel" } else { "BertForSequenceClassification" };
        for (key, value) in [
            ("hidden_size", json!(self.bert.hidden_size)),
            ("model_class", json!(class)),
            ("model_name", json!("")),
            ("model_type", json!("bert")),
            ("name", json!(name)),
            ("version", json!(VERSION)),
        ] {
            fields[key] = value;
        }
        fields
    }
}

/// Writes a safetensors file and a PyTorch file, of these names.
fn write_tensors(
    folder: &Path,
    [safetensors, torch]: [&str; 2],
    tensors: &BTreeMap<String, TensorData>,
) -> Result<(), PeftError> {
    write_safetensors(&folder.join(safetensors), tensors)?;
    torch_file::write(&folder.join(torch), tensors)
}
