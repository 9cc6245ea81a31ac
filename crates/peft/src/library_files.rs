use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use burn::store::bridge;
use burn::tensor::{DType, TensorData};
use nsmc_bert::{CheckpointError, Tensors, load_by_path};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::Value;

use crate::names::{is_transposed, transpose};
use crate::parameters::paths;
use crate::{PeftError, PeftModel};

/// Stands before the name of a tensor without a place, which may be a parameter's path by chance; no
/// path begins so.
const NO_PLACE: &str = "no place: ";

/// Tensors by other names, without those that have none. Two tensors of one name are an error: which of
/// them trained, a name does not say.
pub(crate) fn renamed(
    tensors: Tensors,
    path: &Path,
    new_name: impl Fn(&str) -> Option<String>,
) -> Result<Tensors, PeftError> {
    let mut renamed = Tensors::new();
    let mut old_names = BTreeMap::<String, String>::new();
    for (name, tensor) in tensors {
        let Some(new_name) = new_name(&name) else { continue };
        if let Some(other) = old_names.insert(new_name.clone(), name.clone()) {
            let message = format!("`{other}` and `{name}` are two tensors for one place");
            return Err(PeftError::Config { path: path.into(), message });
        }
        renamed.insert(new_name, tensor);
    }
    Ok(renamed)
}

impl PeftModel {
    /// Loads tensors by their names in the library. Those that are `required` must be given, and
    /// every tensor given must have a place among them.
    pub(crate) fn load_library_tensors(
        self,
        tensors: Tensors,
        path: &Path,
        required: impl Fn(&str) -> bool,
    ) -> Result<Self, PeftError> {
        let names: BTreeMap<String, String> =
            paths(&self).into_iter().map(|path| (self.library_name(&path), path)).collect();
        let replaced: Vec<String> = tensors
            .keys()
            .filter_map(|name| names.get(name))
            .filter(|path| path.starts_with("base.bert."))
            .cloned()
            .collect();
        let tensors = tensors.into_iter().map(|(name, mut tensor)| {
            let place = names.get(&name).filter(|_| required(&name)).cloned();
            let place = place.unwrap_or_else(|| format!("{NO_PLACE}{name}"));
            if is_transposed(&name) && tensor.shape.len() == 2 {
                let shape = [tensor.shape[1], tensor.shape[0]];
                return bridge::map_data(tensor, place, DType::F32, shape.into(), |data| {
                    transpose(&data)
                });
            }
            tensor.name = place;
            tensor
        });
        let tensors: Vec<_> = tensors.collect();
        let by_path: BTreeMap<&str, &str> =
            names.iter().map(|(name, path)| (path.as_str(), name.as_str())).collect();
        let name_of = |path: &str| match path.strip_prefix(NO_PLACE) {
            Some(name) => name.to_owned(),
            None => by_path.get(path).map_or(path, |&name| name).to_owned(),
        };
        let mut model = load_by_path(self, tensors, path, name_of, required)?;
        model.replaced.extend(replaced);
        Ok(model)
    }
}

/// Writes JSON into a folder, which is made if it is not there. The file appears whole or not at all.
pub(crate) fn write_json(folder: &Path, name: &str, json: &Value) -> Result<(), PeftError> {
    fs_err::create_dir_all(folder)?;
    let text = serde_json::to_string_pretty(json).expect("JSON is representable as text");
    whole(&folder.join(name), |partial| Ok(fs_err::write(partial, text + "\n")?))
}

/// Writes a file beside its place, and puts it there when it is whole.
pub(crate) fn whole(
    path: &Path,
    write: impl FnOnce(&Path) -> Result<(), PeftError>,
) -> Result<(), PeftError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    let partial = path.with_file_name(name);
    write(&partial)?;
    Ok(fs_err::rename(partial, path)?)
}

/// Writes a safetensors file that transformers, peft and adapters take.
pub(crate) fn write_safetensors(
    path: &Path,
    tensors: &BTreeMap<String, TensorData>,
) -> Result<(), PeftError> {
    let bytes: Vec<(&String, Vec<u8>)> = tensors
        .iter()
        .map(|(name, data)| (name, data.iter::<f32>().flat_map(f32::to_le_bytes).collect()))
        .collect();
    let views = bytes.iter().map(|(name, bytes)| {
        let shape = tensors[*name].shape().as_slice().to_vec();
        let view = TensorView::new(Dtype::F32, shape, bytes);
        (name.as_str(), view.expect("the shape fits the data"))
    });
    let header = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    // `serialize_to_file` would make a file that its owner alone can read.
    let bytes = safetensors::serialize(views, Some(header)).map_err(|error| {
        PeftError::Checkpoint(CheckpointError::Write {
            path: path.into(),
            message: error.to_string(),
        })
    })?;
    whole(path, |partial| Ok(fs_err::write(partial, bytes)?))
}
