//! AdapterHub's files: adapters, heads, fusion layers and setups.
//!
//! Read are the current layout and that of 2020, folders and zip archives, safetensors and PyTorch
//! files. Written is the current layout, with each file in both forms, because the Python library
//! looks for the PyTorch one unless it is told otherwise.
//!
//! Deviation: the Python library passes over missing and surplus tensors; here both are errors.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use burn::store::bridge;
use burn::tensor::TensorData;
use nsmc_bert::{Activation, Tensors, load_by_path};
use serde_json::{Map, Value, json};

use crate::bundle::Bundle;
use crate::model::paths;
use crate::names::{is_transposed, transpose};
use crate::{
    AdapterResidual, BottleneckConfig, Composition, FusionConfig, InvertibleConfig, PeftError,
    PeftModel, torch_file,
};

/// The library version whose files are written.
const VERSION: &str = "adapters.1.3.0";

/// How an adapter is loaded.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// The adapter's name here; its own if none is given.
    pub load_as: Option<String>,
    /// The non-linearity of its invertible block; the adapter's own if none is given, as AdapterHub
    /// does from version 2 on. Adapters of 2020 were trained with ReLU.
    pub invertible_non_linearity: Option<Activation>,
}

impl PeftModel {
    /// Loads a bottleneck adapter from a folder or a zip archive, and returns its name here.
    pub fn load_adapter(
        &mut self,
        source: &Path,
        options: &LoadOptions,
    ) -> Result<String, PeftError> {
        let bundle = Bundle::open(source)?;
        let file = "adapter_config.json";
        let config = bundle.json(file)?;
        let refuse = |message: String| bundle.config_error(file, &message);
        self.check_model(&config).map_err(&refuse)?;
        let own_name = config["name"].as_str().ok_or_else(|| refuse("no `name`".into()))?;
        let name = options.load_as.clone().unwrap_or_else(|| own_name.to_owned());
        let mut bottleneck = bottleneck_config(&config).map_err(&refuse)?;

        let (path, tensors) = bundle.tensors(&["adapter.safetensors", "pytorch_adapter.bin"])?;
        let tensors: Tensors = tensors
            .into_iter()
            .map(|(key, tensor)| (current_name(&key, own_name, &name), tensor))
            // With a LayerNorm of its own on the input, the file has it under two names.
            .filter(|(key, _)| !key.contains(".adapter_norm_before."))
            .collect();
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
        if let (Some(invertible), Some(non_linearity)) =
            (&mut bottleneck.invertible, options.invertible_non_linearity)
        {
            invertible.non_linearity = non_linearity;
        }

        let mut extended = self.clone();
        extended.add_adapter(&name, &bottleneck, 0)?;
        let own = |key: &str| {
            key.contains(&format!(".adapters.{name}."))
                || key.starts_with(&format!("bert.invertible_adapters.{name}."))
        };
        *self = extended.load_library_tensors(tensors, &path, own)?;
        Ok(name)
    }

    /// Loads the head of a folder or a zip archive: a classifier on the pooler, or AdapterHub's own.
    pub fn load_head(&mut self, source: &Path) -> Result<(), PeftError> {
        let bundle = Bundle::open(source)?;
        let file = "head_config.json";
        let config = bundle.json(file)?;
        let refuse = |message: String| bundle.config_error(file, &message);
        self.check_model(&config).map_err(&refuse)?;
        let (path, tensors) =
            bundle.tensors(&["model_head.safetensors", "pytorch_model_head.bin"])?;
        let head = &config["config"];
        if head.is_null() {
            *self = self.clone().load_library_tensors(tensors, &path, is_classifier)?;
            return Ok(());
        }
        let name = config["name"].as_str().ok_or_else(|| refuse("no `name`".into()))?.to_owned();
        let form = (
            head["head_type"].as_str().unwrap_or_default(),
            head["layers"].as_u64().unwrap_or_default(),
            head["use_pooler"].as_bool().unwrap_or_default(),
            head["activation_function"].as_str().unwrap_or_default(),
            head["bias"].as_bool().unwrap_or(true),
        );
        match form {
            ("classification", 1, true, _, true) => {
                let prefix = format!("heads.{name}.1.");
                let tensors = tensors
                    .into_iter()
                    .map(|(key, tensor)| (key.replace(&prefix, "classifier."), tensor));
                let tensors = tensors.collect();
                *self = self.clone().load_library_tensors(tensors, &path, is_classifier)?;
            }
            ("classification", 2, false, "tanh", true) => {
                let mut extended = self.clone();
                extended.add_head(&name, 0);
                let own = |key: &str| key.starts_with("heads.");
                *self = extended.load_library_tensors(tensors, &path, own)?;
            }
            _ => {
                return Err(refuse(format!(
                    "the head {head} is not implemented; classification heads of one layer on the \
                     pooler or of two layers with tanh are"
                )));
            }
        }
        Ok(())
    }

    /// Loads a fusion layer from a folder, and returns its name. Its adapters must be there.
    pub fn load_fusion(&mut self, source: &Path) -> Result<String, PeftError> {
        let bundle = Bundle::open(source)?;
        let file = "adapter_fusion_config.json";
        let config = bundle.json(file)?;
        let refuse = |message: String| bundle.config_error(file, &message);
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
        let (path, tensors) = bundle
            .tensors(&["model_adapter_fusion.safetensors", "pytorch_model_adapter_fusion.bin"])?;
        let mut extended = self.clone();
        extended.add_fusion(&Composition::fuse(names), fusion, 0)?;
        let marker = format!(".adapter_fusion_layer.{name}.");
        // Saving "a" also saves "a,b": the library takes names by their beginnings.
        let own = |key: &str| key.contains(&marker);
        let tensors = tensors.into_iter().filter(|(key, _)| own(key)).collect();
        *self = extended.load_library_tensors(tensors, &path, own)?;
        Ok(name)
    }

    /// Loads a setup: the composition of `adapter_setup.json` and, from the folders beside it, its
    /// adapters and fusion layers that are not there yet, and its head. Makes the composition active.
    pub fn load_setup(&mut self, folder: &Path) -> Result<Composition, PeftError> {
        let bundle = Bundle::open(folder)?;
        let setup = bundle.json("adapter_setup.json")?;
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
        let head = folder.join(setup["head_setup"].as_str().unwrap_or(composition.last()));
        if head.join("head_config.json").is_file() {
            extended.load_head(&head)?;
        }
        extended.set_active(Some(composition.clone()))?;
        *self = extended;
        Ok(composition)
    }

    /// Writes an adapter into `folder`.
    pub fn save_adapter(&self, name: &str, folder: &Path) -> Result<(), PeftError> {
        let adapter = self.adapters.adapter(name).ok_or_else(|| PeftError::Name(name.into()))?;
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
        let own = |key: &str| {
            key.contains(&format!(".adapters.{name}."))
                || key.starts_with(&format!("bert.invertible_adapters.{name}."))
        };
        let meta = self.meta(name, json!({"config": bottleneck_json(config)}));
        write(folder, "adapter_config.json", &meta)?;
        let files = ["adapter.safetensors", "pytorch_adapter.bin"];
        write_tensors(folder, files, &self.library_tensors(own))
    }

    /// Writes the head into `folder`.
    pub fn save_head(&self, folder: &Path) -> Result<(), PeftError> {
        let label2id: Map<String, Value> =
            self.bert.id2label.iter().map(|(id, label)| (label.clone(), (*id).into())).collect();
        let mut meta = if self.head.is_some() {
            let head = json!({
                "head_type": "classification", "layers": 2, "activation_function": "tanh",
                "num_labels": self.bert.num_labels(), "use_pooler": false, "bias": true,
                "dropout_prob": null, "label2id": label2id,
            });
            self.meta(&self.head_name, json!({"config": head}))
        } else {
            let num_labels = self.bert.num_labels();
            self.meta("", json!({"config": null, "label2id": label2id, "num_labels": num_labels}))
        };
        if self.head.is_none() {
            meta["name"] = Value::Null;
        }
        write(folder, "head_config.json", &meta)?;
        let own = |key: &str| {
            if self.head.is_some() { key.starts_with("heads.") } else { is_classifier(key) }
        };
        let files = ["model_head.safetensors", "pytorch_model_head.bin"];
        write_tensors(folder, files, &self.library_tensors(own))
    }

    /// Writes a fusion layer into `folder`.
    pub fn save_fusion(&self, name: &str, folder: &Path) -> Result<(), PeftError> {
        let fusion = self.adapters.fusion(name).ok_or_else(|| PeftError::Name(name.into()))?;
        let names: Vec<&str> = name.split(',').collect();
        let meta = json!({"adapter_names": names, "config": fusion_json(fusion.config())});
        write(folder, "adapter_fusion_config.json", &self.meta(name, meta))?;
        let marker = format!(".adapter_fusion_layer.{name}.");
        let files = ["model_adapter_fusion.safetensors", "pytorch_model_adapter_fusion.bin"];
        write_tensors(folder, files, &self.library_tensors(|key| key.contains(&marker)))
    }

    /// Writes the active composition into `folder`, with a folder for each of its adapters and fusion
    /// layers. AdapterHub's head is in the folder of its name, a classifier beside the last adapter.
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
        write(folder, "adapter_setup.json", &setup)
    }

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

    fn meta(&self, name: &str, mut fields: Value) -> Value {
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

    /// The parameters whose names in the library `wanted` takes.
    pub(crate) fn library_tensors(
        &self,
        wanted: impl Fn(&str) -> bool,
    ) -> BTreeMap<String, TensorData> {
        self.state_dict().into_iter().filter(|(name, _)| wanted(name)).collect()
    }

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
        let tensors = tensors.into_iter().map(|(name, mut tensor)| {
            // A tensor without a place keeps its name, so that it is found to be surplus.
            let place = names.get(&name).filter(|_| required(&name)).cloned();
            let place = place.unwrap_or_else(|| name.clone());
            if is_transposed(&name) && tensor.shape.len() == 2 {
                let shape = [tensor.shape[1], tensor.shape[0]];
                return bridge::map_data(
                    tensor,
                    place,
                    burn::tensor::DType::F32,
                    shape.into(),
                    |data| transpose(&data),
                );
            }
            tensor.name = place;
            tensor
        });
        let tensors: Vec<_> = tensors.collect();
        let by_path: BTreeMap<&str, &str> =
            names.iter().map(|(name, path)| (path.as_str(), name.as_str())).collect();
        let name_of =
            |path: &str| by_path.get(path).map_or_else(|| path.to_owned(), |&name| name.to_owned());
        Ok(load_by_path(self, tensors, path, name_of, required)?)
    }
}

fn is_classifier(name: &str) -> bool {
    name.starts_with("classifier.")
}

/// Today's name of a tensor, for an adapter that is loaded under another name.
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

/// Reads the bottleneck's configuration from `adapter_config.json`, with the fix-ups that AdapterHub
/// makes for older files.
fn bottleneck_config(file: &Value) -> Result<BottleneckConfig, String> {
    let config = &file["config"];
    if let Some(name) = config.as_str() {
        return match name {
            "pfeiffer" | "seq_bn" => Ok(BottleneckConfig::pfeiffer(16.0)),
            "pfeiffer+inv" | "seq_bn_inv" => Ok(BottleneckConfig::pfeiffer(16.0).with_invertible()),
            "houlsby" | "double_seq_bn" => Ok(BottleneckConfig::houlsby(16.0)),
            "houlsby+inv" | "double_seq_bn_inv" => {
                Ok(BottleneckConfig::houlsby(16.0).with_invertible())
            }
            _ => Err(format!("the configuration `{name}` is not implemented")),
        };
    }
    if let Some(architecture) = config["architecture"].as_str() {
        return Err(format!(
            "the architecture `{architecture}` is not implemented here; bottleneck adapters are"
        ));
    }
    let flag = |key: &str, default: Option<bool>| match &config[key] {
        Value::Bool(value) => Ok(*value),
        Value::Null => default.ok_or_else(|| format!("`config.{key}`: missing")),
        other => Err(format!("`config.{key}`: expected true or false, found {other}")),
    };
    for key in ["is_parallel", "phm_layer", "use_gating"] {
        if flag(key, Some(false))? {
            return Err(format!("`config.{key}` is not implemented"));
        }
    }
    if config["stochastic_depth"].as_f64().unwrap_or(0.0) > 0.0 {
        return Err("`config.stochastic_depth` is not implemented".into());
    }
    let non_linearity = non_linearity(&config["non_linearity"], file["version"].is_null())?;
    let (reduction_factor, layer_reduction_factors) =
        reduction_factors(&config["reduction_factor"])?;
    let leave_out = match &config["leave_out"] {
        Value::Null => Vec::new(),
        Value::Array(layers) => {
            let layers: Option<Vec<usize>> =
                layers.iter().map(|layer| Some(layer.as_u64()? as usize)).collect();
            layers.ok_or("`config.leave_out`: expected an array of layers")?
        }
        other => return Err(format!("`config.leave_out`: expected an array, found {other}")),
    };
    let bottleneck = BottleneckConfig {
        mh_adapter: flag("mh_adapter", None)?,
        output_adapter: flag("output_adapter", None)?,
        reduction_factor,
        layer_reduction_factors,
        leave_out,
        non_linearity,
        original_ln_before: flag("original_ln_before", None)?,
        original_ln_after: flag("original_ln_after", None)?,
        ln_before: flag("ln_before", None)?,
        ln_after: flag("ln_after", None)?,
        residual_before_ln: match &config["residual_before_ln"] {
            Value::Bool(true) => AdapterResidual::Hidden,
            Value::Bool(false) => AdapterResidual::Input,
            Value::String(text) if text == "post_add" => AdapterResidual::PostAdd,
            other => {
                return Err(format!(
                    "`config.residual_before_ln`: expected true, false or \"post_add\", found {other}"
                ));
            }
        },
        adapter_residual_before_ln: flag("adapter_residual_before_ln", Some(false))?,
        scaling: match &config["scaling"] {
            Value::Null => 1.0,
            Value::Number(number) => number.as_f64().unwrap_or(f64::NAN),
            other => {
                return Err(format!("`config.scaling`: {other} is not implemented; a number is"));
            }
        },
        dropout: config["dropout"].as_f64().unwrap_or(0.0),
        invertible: invertible_config(config, non_linearity)?,
    };
    bottleneck.check().map_err(|error| error.to_string())?;
    Ok(bottleneck)
}

/// Before version 3 "gelu" was the tanh approximation; such files have no version.
fn non_linearity(value: &Value, unversioned: bool) -> Result<Activation, String> {
    let name = value.as_str().ok_or("`config.non_linearity`: expected a string")?.to_lowercase();
    match (name.as_str(), unversioned) {
        ("gelu", true) | ("gelu_new", _) => Ok(Activation::GeluNew),
        ("gelu_orig", true) | ("gelu", false) => Ok(Activation::Gelu),
        ("relu", _) => Ok(Activation::Relu),
        ("swish" | "silu", _) => Ok(Activation::Swish),
        ("tanh", _) => Ok(Activation::Tanh),
        (other, _) => Err(format!(
            "`config.non_linearity`: `{other}` is not implemented; relu, gelu, gelu_new, swish and \
             tanh are"
        )),
    }
}

fn reduction_factors(value: &Value) -> Result<(f64, BTreeMap<usize, f64>), String> {
    let bad = || format!("`config.reduction_factor`: expected a number or a map, found {value}");
    match value {
        Value::Number(number) => Ok((number.as_f64().ok_or_else(bad)?, BTreeMap::new())),
        Value::Object(entries) => {
            let mut layers = BTreeMap::new();
            let mut default = None;
            for (layer, factor) in entries {
                let factor = factor.as_f64().ok_or_else(bad)?;
                if layer == "default" {
                    default = Some(factor);
                } else {
                    layers.insert(layer.parse().map_err(|_| bad())?, factor);
                }
            }
            // A map without a default must name every layer; then it is never asked for.
            Ok((default.unwrap_or(16.0), layers))
        }
        _ => Err(bad()),
    }
}

fn invertible_config(
    config: &Value,
    non_linearity: Activation,
) -> Result<Option<InvertibleConfig>, String> {
    // Files of 2020 nest it; its own `non_linearity` is dropped, as AdapterHub does.
    let nested = &config["invertible_adapter"];
    let (kind, factor) = if nested.is_object() {
        (&nested["block_type"], &nested["reduction_factor"])
    } else {
        (&config["inv_adapter"], &config["inv_adapter_reduction_factor"])
    };
    match kind.as_str() {
        None => Ok(None),
        Some("nice") => {
            let reduction_factor = factor.as_f64().unwrap_or(2.0);
            Ok(Some(InvertibleConfig { reduction_factor, non_linearity }))
        }
        Some(other) => {
            Err(format!("`config.inv_adapter`: `{other}` is not implemented; `nice` is"))
        }
    }
}

fn bottleneck_json(config: &BottleneckConfig) -> Value {
    let reduction_factor = if config.layer_reduction_factors.is_empty() {
        number(config.reduction_factor)
    } else {
        let mut factors: Map<String, Value> = config
            .layer_reduction_factors
            .iter()
            .map(|(layer, factor)| (layer.to_string(), number(*factor)))
            .collect();
        factors.insert("default".into(), number(config.reduction_factor));
        Value::Object(factors)
    };
    json!({
        "adapter_residual_before_ln": config.adapter_residual_before_ln,
        "cross_adapter": false,
        "dropout": config.dropout,
        "factorized_phm_W": true,
        "factorized_phm_rule": false,
        "hypercomplex_nonlinearity": "glorot-uniform",
        "init_weights": "bert",
        "init_weights_seed": null,
        "inv_adapter": config.invertible.map(|_| "nice"),
        "inv_adapter_reduction_factor":
            config.invertible.map(|invertible| number(invertible.reduction_factor)),
        "is_parallel": false,
        "learn_phm": true,
        "leave_out": config.leave_out,
        "ln_after": config.ln_after,
        "ln_before": config.ln_before,
        "mh_adapter": config.mh_adapter,
        "non_linearity": config.non_linearity,
        "original_ln_after": config.original_ln_after,
        "original_ln_before": config.original_ln_before,
        "output_adapter": config.output_adapter,
        "phm_bias": true,
        "phm_c_init": "normal",
        "phm_dim": 4,
        "phm_init_range": 0.0001,
        "phm_layer": false,
        "phm_rank": 1,
        "reduction_factor": reduction_factor,
        "residual_before_ln": match config.residual_before_ln {
            AdapterResidual::Hidden => json!(true),
            AdapterResidual::Input => json!(false),
            AdapterResidual::PostAdd => json!("post_add"),
        },
        "scaling": config.scaling,
        "shared_W_phm": false,
        "shared_phm_rule": true,
        "stochastic_depth": 0.0,
        "use_gating": false,
    })
}

/// Python divides by what it reads: a whole number stays one.
fn number(value: f64) -> Value {
    if value.fract() == 0.0 { json!(value as i64) } else { json!(value) }
}

fn fusion_config(config: &Value) -> Result<FusionConfig, String> {
    let flag = |key: &str| {
        config[key].as_bool().ok_or_else(|| format!("`config.{key}`: expected true or false"))
    };
    if config["temperature"].as_bool().unwrap_or(false) {
        return Err(
            "`config.temperature` is not implemented: it changes with every forward pass".into()
        );
    }
    Ok(FusionConfig {
        query: flag("query")?,
        key: flag("key")?,
        value: flag("value")?,
        query_before_ln: flag("query_before_ln")?,
        regularization: flag("regularization")?,
        residual_before: flag("residual_before")?,
        value_before_softmax: flag("value_before_softmax")?,
        // The initial value, which the name does not say: a string in files of version 1.
        value_initialized: match &config["value_initialized"] {
            Value::Bool(value) => *value,
            Value::String(text) => text.eq_ignore_ascii_case("true"),
            other => return Err(format!("`config.value_initialized`: found {other}")),
        },
        dropout_prob: config["dropout_prob"].as_f64(),
    })
}

fn fusion_json(config: FusionConfig) -> Value {
    json!({
        "dropout_prob": config.dropout_prob,
        "key": config.key,
        "query": config.query,
        "query_before_ln": config.query_before_ln,
        "regularization": config.regularization,
        "residual_before": config.residual_before,
        "temperature": false,
        "value": config.value,
        "value_before_softmax": config.value_before_softmax,
        "value_initialized": config.value_initialized,
    })
}

pub(crate) fn write(folder: &Path, name: &str, json: &Value) -> Result<(), PeftError> {
    fs_err::create_dir_all(folder)?;
    let text = serde_json::to_string_pretty(json).expect("JSON is representable as text");
    Ok(fs_err::write(folder.join(name), text + "\n")?)
}

fn write_tensors(
    folder: &Path,
    [safetensors, torch]: [&str; 2],
    tensors: &BTreeMap<String, TensorData>,
) -> Result<(), PeftError> {
    write_safetensors(&folder.join(safetensors), tensors)?;
    torch_file::write(&folder.join(torch), tensors)
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
        let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape, bytes);
        (name.as_str(), view.expect("the shape fits the data"))
    });
    let header = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    safetensors::serialize_to_file(views, Some(header), path).map_err(|error| {
        PeftError::Checkpoint(nsmc_bert::CheckpointError::Write {
            path: path.into(),
            message: error.to_string(),
        })
    })
}
