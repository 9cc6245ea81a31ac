use std::path::Path;

use serde_json::{Value, json};

use super::{LoadOptions, VERSION, head};
use crate::bundle::Bundle;
use crate::composition::check_name;
use crate::library_files::write_json;
use crate::{Composition, PeftError, PeftModel};

const CONFIG: &str = "adapter_setup.json";

impl PeftModel {
    /// Loads a setup: the composition of `adapter_setup.json` and, from the folders beside it, its
    /// adapters and fusion layers that are not there yet, and its head: that of its name, the setup's
    /// own folder for `true`, or where no head is named that beside the last adapter, if there is one.
    /// Makes the composition active.
    pub fn load_setup(&mut self, folder: &Path) -> Result<Composition, PeftError> {
        let bundle = Bundle::open(folder)?;
        let setup = bundle.json(CONFIG)?;
        let composition = match Composition::from_json(&setup["adapter_setup"])? {
            Composition::Stack(mut children) if children.len() == 1 => children.swap_remove(0),
            composition => composition,
        };
        let mut extended = self.clone();
        for name in composition.names() {
            if extended.adapters.adapter(name).is_none() {
                extended.load_adapter(&folder.join(name), &LoadOptions::default())?;
            }
        }
        for name in composition.fusions() {
            if extended.adapters.fusion(&name).is_none() {
                extended.load_fusion(&folder.join(&name))?;
            }
        }
        let named = |name: &str| check_name(name).map(|()| folder.join(name));
        match &setup["head_setup"] {
            // What this program writes of a classifier, and what the library leaves out.
            Value::Null => {
                let head = named(composition.last())?;
                if head.join(head::CONFIG).is_file() {
                    extended.load_head(&head)?;
                }
            }
            Value::Bool(true) => {
                extended.load_head(folder)?;
            }
            Value::String(name) => {
                extended.load_head(&named(name)?)?;
            }
            Value::Array(names) if names.len() == 1 && names[0].is_string() => {
                extended.load_head(&named(names[0].as_str().unwrap_or_default())?)?;
            }
            other => {
                return Err(bundle.config_error(
                    CONFIG,
                    &format!("`head_setup`: expected one head's name, true or null, found {other}"),
                ));
            }
        }
        extended.set_active(Some(composition.clone()))?;
        *self = extended;
        Ok(composition)
    }

    /// Writes the active composition into `folder`, with a folder for each of its adapters and fusion
    /// layers. AdapterHub's head is in the folder of its name, a classifier beside the last adapter.
    ///
    /// What trained of the base beneath the head is not among it: where [`Self::changes_base`] says so,
    /// the base must be written, too.
    pub fn save_setup(&self, folder: &Path) -> Result<(), PeftError> {
        let composition = self.adapters.active().ok_or_else(|| PeftError::Value {
            key: "setup",
            message: "no adapter is active".into(),
        })?;
        for name in composition.names() {
            self.save_adapter(name, &folder.join(name))?;
        }
        let head = self.head.is_some().then_some(self.head_name.as_str());
        self.save_head(&folder.join(head.unwrap_or(composition.last())))?;
        for name in composition.fusions() {
            self.save_fusion(&name, &folder.join(&name))?;
        }
        // The library has no setup of a bare name.
        let block = match composition {
            Composition::Single(name) => Composition::stack([name]),
            block => block.clone(),
        };
        let setup = json!({
            "adapter_setup": block.to_json(),
            "head_setup": head,
            "version": VERSION,
        });
        write_json(folder, CONFIG, &setup)
    }
}
