use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::store::burn_pack::{Error as PackError, Tensor as PackTensor};
use burn::store::{
    ApplyError, BurnToPyTorchAdapter, FloatCastAdapter, ModuleAdapter, ModuleSnapshot, ModuleStore,
    PyTorchToBurnAdapter, PytorchStore, SafetensorsStore, bridge,
};
use burn::tensor::{DType, TensorData};
use serde::Deserialize;
use serde_json::Value;

use crate::{BertConfig, CheckpointError};

/// The tensors of a checkpoint by their names in transformers, read when they are needed.
pub type Tensors = BTreeMap<String, PackTensor>;

/// Buffers that some versions of transformers saved and that hold no weights.
const IGNORED: [&str; 2] = ["bert.embeddings.position_ids", "bert.embeddings.token_type_ids"];

/// Weights in one file, or the index of those in several, in the order in which transformers looks for
/// them.
const WEIGHTS: [&str; 4] = [
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
];

/// The weights file of a folder in Hugging Face layout: the one that transformers takes.
pub(crate) fn weights_file(folder: &Path) -> Result<PathBuf, CheckpointError> {
    let adapter = folder.join("adapter_config.json");
    if adapter.exists() {
        return Err(CheckpointError::Config {
            path: adapter,
            message: "an adapter beside a model: where PEFT is installed, transformers loads this \
                      adapter, on the base that it names, in the place of the weights beside it; put \
                      one of the two into another folder"
                .into(),
        });
    }
    let path = WEIGHTS.map(|name| folder.join(name)).into_iter().find(|path| path.is_file());
    match path {
        Some(path) if path.extension().is_some_and(|extension| extension == "json") => {
            Err(CheckpointError::SeveralFiles { path })
        }
        Some(path) => Ok(path),
        None => Err(CheckpointError::NoWeights { folder: folder.into() }),
    }
}

/// What a folder's `config.json` says of the weights beside it, where [`BertConfig`] says nothing.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct Declared {
    /// transformers' classes that wrote the weights.
    architectures: Option<Vec<String>>,
    /// Absent, it is true; null is not.
    tie_word_embeddings: TieWordEmbeddings,
    /// The names of the weights' classes.
    id2label: Value,
    /// What a classifier's logits are taken for.
    problem_type: Option<String>,
}

#[derive(Deserialize)]
struct TieWordEmbeddings(Value);

impl Default for TieWordEmbeddings {
    fn default() -> Self {
        Self(true.into())
    }
}

impl Declared {
    /// Reads it; a folder without `config.json` declares nothing.
    pub(crate) fn read(folder: &Path) -> Result<Self, CheckpointError> {
        let path = folder.join("config.json");
        if !path.is_file() {
            return Ok(Self::default());
        }
        let text = fs_err::read_to_string(&path)?;
        serde_json::from_str(&text)
            .map_err(|error| CheckpointError::Config { path, message: error.to_string() })
    }

    /// Whether the weights' `classifier` is that of another task. By name, and with as many classes
    /// by shape, it cannot be told from a sequence's.
    pub(crate) fn has_other_classifier(&self) -> bool {
        let other = ["BertForTokenClassification", "BertForMultipleChoice"];
        self.architectures.iter().flatten().any(|class| other.contains(&class.as_str()))
    }

    /// Refuses a classifier whose classes are those of `config` in another order: what it learned of one
    /// would be said of another.
    pub(crate) fn check_class_order(
        &self,
        folder: &Path,
        config: &BertConfig,
    ) -> Result<(), CheckpointError> {
        let mut found: Vec<(usize, &str)> = (self.id2label.as_object().into_iter().flatten())
            .filter_map(|(id, name)| Some((id.parse().ok()?, name.as_str()?)))
            .collect();
        found.sort_unstable();
        let found: Vec<&str> = found.into_iter().map(|(_, name)| name).collect();
        let expected: Vec<&str> = config.id2label.values().map(String::as_str).collect();
        let [theirs, ours] = [&found, &expected].map(|names| names.iter().collect::<BTreeSet<_>>());
        if found == expected || theirs != ours {
            return Ok(());
        }
        Err(CheckpointError::Config {
            path: folder.join("config.json"),
            message: format!(
                "`id2label`: expected the classes in their order, [{}], found [{}], and the weights have a \
                 classifier: put them in its order, that is `label_names` and with it `labels` of a run's \
                 [data]",
                expected.join(", "),
                found.join(", ")
            ),
        })
    }

    /// Refuses a classifier that was trained for more than one class of a text at once, or for numbers:
    /// here its logits are those of classes of which one is right.
    pub(crate) fn check_problem(&self, folder: &Path) -> Result<(), CheckpointError> {
        const CLASSES: &str = "single_label_classification";
        match self.problem_type.as_deref() {
            None | Some(CLASSES) => Ok(()),
            Some(found) => Err(CheckpointError::Config {
                path: folder.join("config.json"),
                message: format!(
                    "`problem_type`: expected \"{CLASSES}\" or null, found \"{found}\", for which the \
                     classifier in the weights was trained; set the key to null to go on from that \
                     classifier all the same, or take it out of the weights to get a new one"
                ),
            }),
        }
    }

    /// Refuses a decoder of its own, which a model whose decoder is the word embeddings would lose.
    pub(crate) fn check_tied(&self, folder: &Path) -> Result<(), CheckpointError> {
        match &self.tie_word_embeddings.0 {
            Value::Bool(true) => Ok(()),
            found => Err(CheckpointError::Config {
                path: folder.join("config.json"),
                message: format!(
                    "`tie_word_embeddings`: expected true, found {found}: a masked language model \
                     whose decoder is not the word embeddings is not implemented; as the base of a \
                     classifier, which has no decoder, it can be used"
                ),
            }),
        }
    }
}

/// Reads a `.safetensors` file or a PyTorch checkpoint (both the zip container and the stream that
/// PyTorch wrote before 1.6), under the names that transformers uses today.
///
/// A LayerNorm's `gamma` and `beta` become `weight` and `bias`, a bare `BertModel`'s names get their
/// `bert.` prefix, and buffers without weights are left out. Two tensors that come to the same name are
/// an error.
///
/// Deviation: of a `LayerNorm.gamma` beside the `LayerNorm.weight` of the same module, transformers takes
/// one without a word.
pub fn read_tensors(path: &Path) -> Result<Tensors, CheckpointError> {
    // The stores do not name the file that is missing.
    fs_err::File::open(path)?;
    let unreadable = |message: String| CheckpointError::Unreadable { path: path.into(), message };
    let tensors = if path.extension().is_some_and(|extension| extension == "safetensors") {
        let mut store = SafetensorsStore::from_file(path);
        store.get_all_tensors().map_err(|error| unreadable(error.to_string()))?.clone()
    } else {
        let mut store = PytorchStore::from_file(path).map_indices_contiguous(false);
        store.get_all_tensors().map_err(|error| unreadable(error.to_string()))?.clone()
    };
    let prefixed =
        tensors.keys().any(|name| name.starts_with("bert.") || name.starts_with("base_model."));
    let bare = tensors.keys().any(|name| name.starts_with("embeddings."));
    let mut named = Tensors::new();
    let mut names_in_file = BTreeMap::<String, String>::new();
    for (name_in_file, mut tensor) in tensors {
        let mut name = without_gamma_and_beta(name_in_file.clone());
        if bare && !prefixed {
            let own = ["embeddings.", "encoder.", "pooler."];
            if own.iter().any(|module| name.starts_with(module)) {
                name = format!("bert.{name}");
            }
        }
        if IGNORED.contains(&name.as_str()) {
            continue;
        }
        if let Some(other) = names_in_file.insert(name.clone(), name_in_file.clone()) {
            let names = [other, name_in_file];
            return Err(CheckpointError::TwoForOne { path: path.into(), names });
        }
        tensor.name.clone_from(&name);
        named.insert(name, tensor);
    }
    Ok(named)
}

/// Loads `tensors`, named as in transformers, into `module`; `path` is what errors are reported
/// under.
///
/// Every tensor of the module must be there, except those that `may_be_missing` (they keep their
/// values), every tensor given must have a place, and every value must be finite. Half-precision
/// floats are widened to `f32`.
///
/// Deviation: of a tensor that is missing or has no place transformers warns, and goes on with a
/// drawn one or without it; here both are errors.
pub fn load_state_dict<M: Module>(
    module: M,
    tensors: Tensors,
    path: &Path,
    may_be_missing: impl Fn(&str) -> bool,
) -> Result<M, CheckpointError> {
    let tensors = tensors.into_values().map(|mut tensor| {
        tensor.name = burn_path(&tensor.name);
        tensor
    });
    load_by_path(module, tensors.collect(), path, torch_name, |name| !may_be_missing(name))
}

/// Loads `tensors` into `module`. Each is named by the path of its parameter in the module, and is in
/// PyTorch's layout (a linear weight is `[out, in]`).
///
/// `name` says what the parameter at a path is called in errors, which are reported under `path`. A
/// parameter whose name is `required` must be among the tensors; any other keeps its value if it is not.
/// Every tensor must have a place, and every value must be finite. Half-precision floats are widened to
/// `f32`.
pub fn load_by_path<M: Module>(
    mut module: M,
    tensors: Vec<PackTensor>,
    path: &Path,
    name: impl Fn(&str) -> String,
    required: impl Fn(&str) -> bool,
) -> Result<M, CheckpointError> {
    let tensors = tensors.into_iter().map(checked).collect();
    let adapter = PyTorchToBurnAdapter.chain(FloatCastAdapter::to(DType::F32));
    let result = module.apply(tensors, None, Some(Box::new(adapter)), false);

    let missing: Vec<String> =
        result.missing.iter().map(|(path, _)| name(path)).filter(|name| required(name)).collect();
    let surplus: Vec<String> = result.unused.iter().map(|path| name(path)).collect();
    let mismatched: Vec<String> =
        result.errors.iter().map(|error| describe(error, &name)).collect();
    if missing.is_empty() && surplus.is_empty() && mismatched.is_empty() {
        Ok(module)
    } else {
        Err(CheckpointError::Tensors { path: path.into(), missing, surplus, mismatched })
    }
}

/// The module's tensors by their names in transformers, in PyTorch's layout (a linear weight is
/// `[out, in]`).
///
/// # Panics
///
/// If a parameter cannot be read from its device.
pub fn state_dict<M: Module>(module: &M) -> BTreeMap<String, TensorData> {
    module
        .collect(None, Some(Box::new(BurnToPyTorchAdapter)), false)
        .into_iter()
        .map(|tensor| {
            let name = torch_name(&tensor.name);
            (name, bridge::into_data(tensor).expect("a parameter can be read from its device"))
        })
        .collect()
}

/// Writes `config.json` and `model.safetensors` into `folder`, as `save_pretrained` of transformers'
/// class `architecture` does, with floats of `dtype`. Each file appears whole or not at all.
pub fn save_pretrained<M: Module>(
    module: &M,
    folder: &Path,
    config: &BertConfig,
    architecture: &str,
    dtype: DType,
) -> Result<(), CheckpointError> {
    fs_err::create_dir_all(folder)?;
    let path = folder.join("model.safetensors");
    // transformers refuses a file without `format = "pt"`.
    let mut store = SafetensorsStore::from_file(&path)
        .with_to_adapter(BurnToPyTorchAdapter.chain(FloatCastAdapter::to(dtype)))
        .with_key_remapping(r"\.self_attention\.", ".self.")
        .with_key_remapping(r"\.layer_norm\.", ".LayerNorm.")
        .clear_metadata()
        .metadata("format", "pt")
        .overwrite(true);
    module.save_into(&mut store).map_err(|error| CheckpointError::Write {
        path: path.clone(),
        message: error.to_string(),
    })?;
    config.write_with(folder, architecture, dtype)?;
    // The store makes a file that its owner alone can read.
    let permissions = fs_err::metadata(folder.join("config.json"))?.permissions();
    Ok(fs_err::set_permissions(path, permissions)?)
}

/// The name in transformers of the parameter at a path of this crate's modules: of
/// `bert.encoder.layer.0.output.layer_norm.gamma` it is
/// `bert.encoder.layer.0.output.LayerNorm.weight`.
pub fn torch_name(path: &str) -> String {
    let name = path.replace(".self_attention.", ".self.").replace(".layer_norm.", ".LayerNorm.");
    without_gamma_and_beta(name)
}

/// A LayerNorm's `gamma` is `weight` in transformers today, and its `beta` is `bias`. As in transformers,
/// no other module's are: what has another parameter of these names keeps them.
fn without_gamma_and_beta(name: String) -> String {
    if let Some(module) = name.strip_suffix("LayerNorm.gamma") {
        format!("{module}LayerNorm.weight")
    } else if let Some(module) = name.strip_suffix("LayerNorm.beta") {
        format!("{module}LayerNorm.bias")
    } else {
        name
    }
}

fn burn_path(name: &str) -> String {
    name.replace(".self.", ".self_attention.").replace(".LayerNorm.", ".layer_norm.")
}

/// The same tensor, refused when it is read if a value is not finite.
fn checked(tensor: PackTensor) -> PackTensor {
    let (name, dtype, shape) = (tensor.name.clone(), tensor.dtype, tensor.shape.clone());
    if !dtype.is_float() {
        return tensor;
    }
    bridge::deferred(name, dtype, shape, None, move || {
        let data = bridge::to_data(&tensor)?;
        let finite = match data.as_slice::<f32>() {
            Ok(values) => values.iter().all(|value| value.is_finite()),
            Err(_) => data.iter::<f32>().all(f32::is_finite),
        };
        if finite {
            Ok(data)
        } else {
            Err(PackError::ValidationError("a value is not finite (NaN or infinite)".into()))
        }
    })
}

fn describe(error: &ApplyError, name: impl Fn(&str) -> String) -> String {
    match error {
        ApplyError::ShapeMismatch { path, expected, found } => format!(
            "{}: the model's shape is {:?}, the file's {:?} (a linear weight's sides are swapped here)",
            name(path),
            expected.as_slice(),
            found.as_slice()
        ),
        ApplyError::DTypeMismatch { path, expected, found } => {
            format!("{}: expected {expected:?}, found {found:?}", name(path))
        }
        ApplyError::AdapterError { path, message } | ApplyError::LoadError { path, message } => {
            format!("{}: {message}", name(path))
        }
    }
}
