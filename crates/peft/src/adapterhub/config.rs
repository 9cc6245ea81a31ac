use std::collections::BTreeMap;

use nsmc_bert::Activation;
use serde_json::{Map, Value, json};

use crate::{AdapterResidual, BottleneckConfig, FusionConfig, InvertibleConfig, PeftError};

/// Reads the bottleneck's configuration from `adapter_config.json`, for a model of so many layers, with
/// the fix-ups that AdapterHub makes for older files.
pub(super) fn bottleneck_config(
    file: &Value,
    num_hidden_layers: usize,
) -> Result<BottleneckConfig, String> {
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
    // What may be absent has the default of AdapterHub's `BnConfig`.
    let flag = |key: &str, default: Option<bool>| match (config.get(key), default) {
        (Some(Value::Bool(value)), _) => Ok(*value),
        (None, Some(default)) => Ok(default),
        // Python takes null for false.
        (Some(Value::Null), Some(_)) => Ok(false),
        (None | Some(Value::Null), None) => Err(format!("`config.{key}`: missing")),
        (Some(other), _) => Err(format!("`config.{key}`: expected true or false, found {other}")),
    };
    for key in ["is_parallel", "phm_layer", "use_gating"] {
        if flag(key, Some(false))? {
            return Err(format!("`config.{key}` is not implemented"));
        }
    }
    if number_or_null(config, "stochastic_depth")?.unwrap_or(0.0) > 0.0 {
        return Err("`config.stochastic_depth` is not implemented".into());
    }
    // A version of null is one to the library, too.
    let unversioned = file.get("version").is_none();
    let non_linearity = non_linearity(&config["non_linearity"], unversioned)?;
    let leave_out = match &config["leave_out"] {
        Value::Null => Vec::new(),
        Value::Array(layers) => {
            let layers: Option<Vec<usize>> =
                layers.iter().map(|layer| Some(layer.as_u64()? as usize)).collect();
            layers.ok_or("`config.leave_out`: expected an array of layers")?
        }
        other => return Err(format!("`config.leave_out`: expected an array, found {other}")),
    };
    let layers = (0..num_hidden_layers).filter(|layer| !leave_out.contains(layer));
    let (reduction_factor, layer_reduction_factors) =
        reduction_factors(&config["reduction_factor"], layers)?;
    let bottleneck = BottleneckConfig {
        mh_adapter: flag("mh_adapter", None)?,
        output_adapter: flag("output_adapter", None)?,
        reduction_factor,
        layer_reduction_factors,
        leave_out,
        non_linearity,
        original_ln_before: flag("original_ln_before", Some(false))?,
        original_ln_after: flag("original_ln_after", Some(true))?,
        ln_before: flag("ln_before", Some(false))?,
        ln_after: flag("ln_after", Some(false))?,
        residual_before_ln: match config.get("residual_before_ln") {
            None | Some(Value::Bool(true)) => AdapterResidual::Hidden,
            Some(Value::Bool(false)) => AdapterResidual::Input,
            Some(Value::String(text)) if text == "post_add" => AdapterResidual::PostAdd,
            Some(other) => {
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
        dropout: number_or_null(config, "dropout")?.unwrap_or(0.0),
        invertible: invertible_config(config, non_linearity)?,
    };
    bottleneck.check().map_err(|error| in_words_of_file(&error))?;
    Ok(bottleneck)
}

/// What is wrong with a [`BottleneckConfig`] by the keys of `adapter_config.json`.
pub(super) fn in_words_of_file(error: &PeftError) -> String {
    match error {
        PeftError::Value { key: "layer_reduction_factors", message } => {
            format!("`reduction_factor`: {message}")
        }
        other => other.to_string(),
    }
}

/// A number of a file's `config`; none where it is null or absent.
pub(super) fn number_or_null(config: &Value, key: &str) -> Result<Option<f64>, String> {
    match &config[key] {
        Value::Null => Ok(None),
        Value::Number(number) => Ok(Some(number.as_f64().unwrap_or(f64::NAN))),
        other => Err(format!("`config.{key}`: expected a number or null, found {other}")),
    }
}

/// Before version 3 "gelu" was the tanh approximation; such files have no version. As in the library,
/// the old names are lower case, and the others in any.
fn non_linearity(value: &Value, unversioned: bool) -> Result<Activation, String> {
    let name = value.as_str().ok_or("`config.non_linearity`: expected a string")?;
    let name = match (name, unversioned) {
        ("gelu", true) => "gelu_new",
        ("gelu_orig", true) => "gelu",
        (name, _) => name,
    };
    match name.to_lowercase().as_str() {
        "gelu_new" => Ok(Activation::GeluNew),
        "gelu" => Ok(Activation::Gelu),
        "relu" => Ok(Activation::Relu),
        "swish" | "silu" => Ok(Activation::Swish),
        "tanh" => Ok(Activation::Tanh),
        other => Err(format!(
            "`config.non_linearity`: `{other}` is not implemented; relu, gelu, gelu_new, swish and \
             tanh are"
        )),
    }
}

/// The reduction factor, and those of single layers; each of the `layers` has one.
fn reduction_factors(
    value: &Value,
    mut layers_with_adapter: impl Iterator<Item = usize>,
) -> Result<(f64, BTreeMap<usize, f64>), String> {
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
            let unnamed = layers_with_adapter.find(|layer| !layers.contains_key(layer));
            match (default, unnamed) {
                (Some(default), _) => Ok((default, layers)),
                // It is never asked for.
                (None, None) => Ok((16.0, layers)),
                (None, Some(layer)) => Err(format!(
                    "`config.reduction_factor`: expected a factor for layer {layer}, or a `default`, \
                     found {value}"
                )),
            }
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
    let (kind, key, factor) = if nested.is_object() {
        (&nested["block_type"], "invertible_adapter.reduction_factor", &nested["reduction_factor"])
    } else {
        let key = "inv_adapter_reduction_factor";
        (&config["inv_adapter"], key, &config[key])
    };
    match kind {
        Value::Null | Value::Bool(false) => Ok(None),
        Value::String(kind) if kind == "nice" => {
            // It has no default in the library either.
            let reduction_factor = factor.as_f64().ok_or_else(|| {
                format!(
                    "`config.{key}`: expected a number for the invertible block, found {factor}"
                )
            })?;
            Ok(Some(InvertibleConfig { reduction_factor, non_linearity }))
        }
        Value::String(other) => {
            Err(format!("`config.inv_adapter`: `{other}` is not implemented; `nice` is"))
        }
        other => Err(format!("`config.inv_adapter`: {other} is not implemented; \"nice\" is")),
    }
}

/// `config` of `adapter_config.json`.
pub(super) fn bottleneck_json(config: &BottleneckConfig) -> Value {
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

/// Reads the fusion layer's configuration from `config` of `adapter_fusion_config.json`.
pub(super) fn fusion_config(config: &Value) -> Result<FusionConfig, String> {
    let flag = |key: &str| {
        config[key].as_bool().ok_or_else(|| format!("`config.{key}`: expected true or false"))
    };
    match &config["temperature"] {
        Value::Null | Value::Bool(false) => {}
        found => {
            return Err(format!(
                "`config.temperature`: expected false, found {found}: it is not implemented, as it \
                 changes with every forward pass"
            ));
        }
    }
    let fusion = FusionConfig {
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
        dropout_prob: number_or_null(config, "dropout_prob")?,
    };
    fusion.check().map_err(|error| error.to_string())?;
    Ok(fusion)
}

/// `config` of `adapter_fusion_config.json`.
pub(super) fn fusion_json(config: FusionConfig) -> Value {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_version_has_the_old_names_of_gelu() {
        for (name, unversioned, expected) in [
            ("gelu", true, Activation::GeluNew),
            ("gelu", false, Activation::Gelu),
            ("gelu_orig", true, Activation::Gelu),
            // The library renames only these two.
            ("GELU", true, Activation::Gelu),
            ("Gelu_new", true, Activation::GeluNew),
            ("SiLU", false, Activation::Swish),
        ] {
            assert_eq!(non_linearity(&json!(name), unversioned), Ok(expected), "{name}");
        }
        let message = non_linearity(&json!("gelu_orig"), false).unwrap_err();
        assert!(message.contains("`gelu_orig` is not implemented"), "{message}");
    }

    #[test]
    fn what_is_absent_has_the_default_of_the_library() {
        let mut file = json!({"version": "adapters.1.3.0", "config": {
            "mh_adapter": false, "output_adapter": true, "reduction_factor": 16,
            "non_linearity": "relu",
        }});
        // `BnConfig`'s own: not Pfeiffer's, which names `original_ln_before`.
        let default =
            BottleneckConfig { original_ln_before: false, ..BottleneckConfig::pfeiffer(16.0) };
        assert_eq!(bottleneck_config(&file, 2), Ok(default.clone()));
        file["config"]["original_ln_after"] = Value::Null;
        let without = BottleneckConfig { original_ln_after: false, ..default };
        assert_eq!(bottleneck_config(&file, 2), Ok(without));
        for key in ["mh_adapter", "output_adapter"] {
            let mut file = file.clone();
            file["config"][key] = Value::Null;
            assert_eq!(bottleneck_config(&file, 2), Err(format!("`config.{key}`: missing")));
        }
    }

    /// Pfeiffer's keys as the library writes them, and these.
    fn pfeiffer(keys: Value) -> Value {
        let mut config = json!({
            "mh_adapter": false, "output_adapter": true, "reduction_factor": 16,
            "non_linearity": "gelu", "original_ln_before": true,
        });
        let entries = config.as_object_mut().unwrap();
        let Value::Object(keys) = keys else { panic!("{keys} is no object") };
        entries.extend(keys);
        json!({"version": "adapters.1.3.0", "config": config})
    }

    #[test]
    fn a_version_of_null_is_a_version() {
        let mut file = pfeiffer(json!({}));
        file["version"] = Value::Null;
        assert_eq!(bottleneck_config(&file, 2).unwrap().non_linearity, Activation::Gelu);
        file.as_object_mut().unwrap().remove("version");
        assert_eq!(bottleneck_config(&file, 2).unwrap().non_linearity, Activation::GeluNew);
    }

    /// adapters 1.3.0 says `TypeError: unsupported operand type(s) for //: 'int' and 'NoneType'`.
    #[test]
    fn an_invertible_block_has_a_reduction_factor() {
        for factor in [Value::Null, json!("2"), json!([2])] {
            for (keys, key) in [
                (
                    json!({"inv_adapter": "nice", "inv_adapter_reduction_factor": factor}),
                    "inv_adapter_reduction_factor",
                ),
                (
                    json!({"invertible_adapter": {"block_type": "nice", "reduction_factor": factor}}),
                    "invertible_adapter.reduction_factor",
                ),
            ] {
                let message = bottleneck_config(&pfeiffer(keys), 2).unwrap_err();
                let expected =
                    format!("`config.{key}`: expected a number for the invertible block");
                assert!(message.starts_with(&expected), "{message}");
                assert!(message.ends_with(&format!("found {factor}")), "{message}");
            }
        }
        let none = json!({"inv_adapter": null, "inv_adapter_reduction_factor": null});
        assert_eq!(bottleneck_config(&pfeiffer(none), 2).unwrap().invertible, None);
        let message = bottleneck_config(&pfeiffer(json!({"inv_adapter": 1})), 2).unwrap_err();
        assert!(message.starts_with("`config.inv_adapter`: 1 is not implemented"), "{message}");
    }

    #[test]
    fn a_map_of_reduction_factors_has_one_for_every_layer_with_an_adapter() {
        let read = |keys: Value| bottleneck_config(&pfeiffer(keys), 3);
        let message = read(json!({"reduction_factor": {"0": 2, "2": 4}})).unwrap_err();
        let expected =
            "`config.reduction_factor`: expected a factor for layer 1, or a `default`, found";
        assert!(message.starts_with(expected), "{message}");
        for (keys, expected) in [
            (
                json!({"reduction_factor": {"0": 2, "2": 4, "default": 8}}),
                [Some(16), Some(4), Some(8)],
            ),
            (json!({"reduction_factor": {"0": 2, "1": 8, "2": 4}}), [Some(16), Some(4), Some(8)]),
            (
                json!({"reduction_factor": {"0": 2, "2": 4}, "leave_out": [1]}),
                [Some(16), None, Some(8)],
            ),
        ] {
            let config = read(keys.clone()).unwrap();
            let sizes = [0, 1, 2].map(|layer| config.bottleneck_size(32, layer));
            assert_eq!(sizes, expected, "{keys}");
        }
        let message = read(json!({"reduction_factor": {"1": 0, "default": 8}})).unwrap_err();
        let expected =
            "`reduction_factor`: expected a number from 1e-3 to 1e6 for layer 1, found 0e0";
        assert_eq!(message, expected);
    }
}
