use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::DType;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer, Serialize};

use crate::{Activation, CheckpointError};

/// The configuration of a BERT: Hugging Face's `config.json`.
///
/// Keys that transformers writes and this crate has no use for are passed over on reading. A key that
/// may be absent has transformers' own default; one whose value would change the computation in a
/// way this crate does not implement is refused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BertConfig {
    /// Rows of the word embeddings.
    pub vocab_size: usize,
    /// Width of the hidden states.
    pub hidden_size: usize,
    /// Number of encoder layers.
    pub num_hidden_layers: usize,
    /// Attention heads per layer; divides `hidden_size`.
    pub num_attention_heads: usize,
    /// Width of the feed-forward layer.
    pub intermediate_size: usize,
    /// Longest sequence.
    pub max_position_embeddings: usize,
    /// Activation of the feed-forward layer.
    #[serde(default = "gelu")]
    pub hidden_act: Activation,
    /// Dropout of embeddings and of each sub-layer's output.
    #[serde(default = "tenth")]
    pub hidden_dropout_prob: f64,
    /// Dropout of attention probabilities.
    #[serde(default = "tenth")]
    pub attention_probs_dropout_prob: f64,
    /// Dropout before the classifier; `hidden_dropout_prob` if there is none.
    #[serde(default)]
    pub classifier_dropout: Option<f64>,
    /// Number of segments.
    #[serde(default = "two")]
    pub type_vocab_size: usize,
    /// Standard deviation of new weights.
    #[serde(default = "fiftieth")]
    pub initializer_range: f64,
    /// Inside LayerNorm's root.
    #[serde(default = "layer_norm_eps")]
    pub layer_norm_eps: f64,
    /// The padding token, whose embedding takes no gradient; null is no such token, and absent is 0.
    #[serde(default = "first_token")]
    pub pad_token_id: Option<usize>,
    /// Names of the classes; transformers' default is `LABEL_0` and so on, of which a `config.json`
    /// has its `num_labels`, or two ([`Self::read`]).
    #[serde(default = "two_labels", deserialize_with = "labels")]
    pub id2label: BTreeMap<usize, String>,
}

/// Most classes that are counted and not named.
const MAX_LABELS: usize = 100_000;

fn gelu() -> Activation {
    Activation::Gelu
}
fn tenth() -> f64 {
    0.1
}
fn fiftieth() -> f64 {
    0.02
}
fn layer_norm_eps() -> f64 {
    1e-12
}
fn two() -> usize {
    2
}
#[expect(clippy::unnecessary_wraps, reason = "a field's default is of its type")]
fn first_token() -> Option<usize> {
    Some(0)
}
#[expect(clippy::unnecessary_wraps, reason = "a field's default is of its type")]
fn absolute() -> Option<String> {
    Some("absolute".into())
}
fn two_labels() -> BTreeMap<usize, String> {
    unnamed_labels(2)
}
fn unnamed_labels(count: usize) -> BTreeMap<usize, String> {
    (0..count).map(|class| (class, format!("LABEL_{class}"))).collect()
}

/// Names of classes; as in transformers null is no other than absent.
fn labels<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<usize, String>, D::Error> {
    let labels: Option<BTreeMap<usize, String>> = Option::deserialize(deserializer)?;
    Ok(labels.unwrap_or_else(two_labels))
}

/// What `config.json` says beyond [`BertConfig`], as far as it decides the computation.
#[derive(Deserialize)]
struct Beyond {
    num_labels: Option<usize>,
    id2label: Option<IgnoredAny>,
    model_type: Option<String>,
    /// Null is another than absent: transformers adds no position embeddings.
    #[serde(default = "absolute")]
    position_embedding_type: Option<String>,
    is_decoder: Option<bool>,
    add_cross_attention: Option<bool>,
}

impl BertConfig {
    /// Reads a `config.json`.
    pub fn read(path: &Path) -> Result<Self, CheckpointError> {
        let text = fs_err::read_to_string(path)?;
        let refuse = |message: String| CheckpointError::Config { path: path.into(), message };
        let mut config: Self =
            serde_json::from_str(&text).map_err(|error| refuse(error.to_string()))?;
        let other: Beyond =
            serde_json::from_str(&text).map_err(|error| refuse(error.to_string()))?;
        let positions = other.position_embedding_type.unwrap_or_else(|| "null".into());
        for (key, expected, found) in [
            ("model_type", "bert", other.model_type),
            ("position_embedding_type", "absolute", Some(positions)),
            ("is_decoder", "false", other.is_decoder.map(|value| value.to_string())),
            ("add_cross_attention", "false", other.add_cross_attention.map(|v| v.to_string())),
        ] {
            if let Some(found) = found.filter(|found| found != expected) {
                return Err(refuse(format!("`{key}`: expected {expected}, found {found}")));
            }
        }
        // Where the classes have names, transformers passes over their number.
        if let (Some(count), None) = (other.num_labels, other.id2label) {
            if !(1..=MAX_LABELS).contains(&count) {
                return Err(refuse(format!(
                    "`num_labels`: expected a number from 1 to {MAX_LABELS}, found {count}"
                )));
            }
            config.id2label = unnamed_labels(count);
        }
        config.check().map_err(refuse)?;
        Ok(config)
    }

    fn check(&self) -> Result<(), String> {
        // Bounds far above any BERT, below which no product of two sizes overflows.
        for (key, value, most) in [
            ("vocab_size", self.vocab_size, 100_000_000),
            ("hidden_size", self.hidden_size, 100_000),
            ("num_hidden_layers", self.num_hidden_layers, 1_000),
            ("num_attention_heads", self.num_attention_heads, 100_000),
            ("intermediate_size", self.intermediate_size, 1_000_000),
            ("max_position_embeddings", self.max_position_embeddings, 1_000_000),
            ("type_vocab_size", self.type_vocab_size, 1_000_000),
        ] {
            if !(1..=most).contains(&value) {
                return Err(format!("`{key}`: expected a number from 1 to {most}, found {value}"));
            }
        }
        for (key, value, from) in [
            ("initializer_range", self.initializer_range, 0.0),
            // Of a sub-normal number LayerNorm's root is 0 in `f32`.
            ("layer_norm_eps", self.layer_norm_eps, f64::from(f32::MIN_POSITIVE)),
        ] {
            if !(from..=1.0).contains(&value) {
                return Err(format!(
                    "`{key}`: expected a number from {from:e} to 1, found {value:e}"
                ));
            }
        }
        for (key, probability) in [
            ("hidden_dropout_prob", Some(self.hidden_dropout_prob)),
            ("attention_probs_dropout_prob", Some(self.attention_probs_dropout_prob)),
            ("classifier_dropout", self.classifier_dropout),
        ] {
            if let Some(value) = probability.filter(|value| !(0.0..1.0).contains(value)) {
                return Err(format!("`{key}`: expected a number from 0 below 1, found {value}"));
            }
        }
        if !self.hidden_size.is_multiple_of(self.num_attention_heads) {
            return Err(format!(
                "`num_attention_heads`: expected a divisor of `hidden_size` ({}), found {}",
                self.hidden_size, self.num_attention_heads
            ));
        }
        if let Some(token) = self.pad_token_id.filter(|&token| token >= self.vocab_size) {
            return Err(format!(
                "`pad_token_id`: expected a token below `vocab_size` ({}), found {token}",
                self.vocab_size
            ));
        }
        if self.id2label.keys().copied().ne(0..self.id2label.len()) || self.id2label.is_empty() {
            return Err("`id2label`: expected the classes 0, 1, 2, ...".into());
        }
        Ok(())
    }

    /// Number of classes.
    pub fn num_labels(&self) -> usize {
        self.id2label.len()
    }

    /// The same configuration with other classes.
    #[must_use]
    pub fn with_labels<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.id2label = names.into_iter().map(Into::into).enumerate().collect();
        self
    }

    /// Writes `config.json` into `folder` for transformers' class `architecture` with weights in
    /// float32; the file appears whole or not at all.
    pub fn write(&self, folder: &Path, architecture: &str) -> std::io::Result<()> {
        self.write_with(folder, architecture, DType::F32)
    }

    /// [`Self::write`] for weights of `dtype`.
    pub(crate) fn write_with(
        &self,
        folder: &Path,
        architecture: &str,
        dtype: DType,
    ) -> std::io::Result<()> {
        let json = serde_json::to_string_pretty(&self.to_json(architecture, dtype))
            .expect("a configuration is representable in JSON");
        let partial = folder.join("config.json.partial");
        fs_err::write(&partial, json + "\n")?;
        fs_err::rename(partial, folder.join("config.json"))
    }

    /// `config.json` for a model of transformers' class `architecture` with weights of `dtype`.
    fn to_json(&self, architecture: &str, dtype: DType) -> serde_json::Value {
        let mut json =
            serde_json::to_value(self).expect("a configuration is representable in JSON");
        let label2id: BTreeMap<&String, usize> =
            self.id2label.iter().map(|(id, label)| (label, *id)).collect();
        for (key, value) in [
            ("architectures", serde_json::json!([architecture])),
            ("label2id", serde_json::json!(label2id)),
            ("model_type", "bert".into()),
            ("position_embedding_type", "absolute".into()),
            ("torch_dtype", torch_dtype(dtype).into()),
            ("use_cache", true.into()),
        ] {
            json[key] = value;
        }
        if self.id2label.is_empty() {
            // A masked language model has no classes.
            let entries = json.as_object_mut().expect("a configuration is an object");
            entries.remove("id2label");
            entries.remove("label2id");
        }
        json
    }
}

fn torch_dtype(dtype: DType) -> &'static str {
    match dtype {
        DType::F64 => "float64",
        DType::F32 => "float32",
        DType::F16 => "float16",
        DType::BF16 => "bfloat16",
        other => panic!("weights are floats, found {other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `bert-base-multilingual-cased`'s own file.
    const MBERT: &str = r#"{
        "architectures": ["BertForMaskedLM"], "attention_probs_dropout_prob": 0.1,
        "directionality": "bidi", "hidden_act": "gelu", "hidden_dropout_prob": 0.1,
        "hidden_size": 768, "initializer_range": 0.02, "intermediate_size": 3072,
        "layer_norm_eps": 1e-12, "max_position_embeddings": 512, "model_type": "bert",
        "num_attention_heads": 12, "num_hidden_layers": 12, "pad_token_id": 0,
        "pooler_fc_size": 768, "pooler_num_attention_heads": 12, "pooler_num_fc_layers": 3,
        "pooler_size_per_head": 128, "pooler_type": "first_token_transform",
        "type_vocab_size": 2, "vocab_size": 119547
    }"#;

    fn read(text: &str) -> Result<BertConfig, CheckpointError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        fs_err::write(&path, text).unwrap();
        BertConfig::read(&path)
    }

    #[test]
    fn the_multilingual_config_is_read_with_the_defaults_of_transformers() {
        let config = read(MBERT).unwrap();
        assert_eq!(
            (config.vocab_size, config.num_attention_heads, config.num_labels()),
            (119_547, 12, 2)
        );
        assert_eq!(config.classifier_dropout, None);
        assert_eq!(config.id2label[&1], "LABEL_1");
        let saved = config.to_json("BertForSequenceClassification", DType::F32).to_string();
        assert_eq!(read(&saved).unwrap(), config);
        // A number that a parser which does not care reads as the next one.
        let small = read(&MBERT.replace("1e-12", "1e-24")).unwrap();
        assert_eq!(small.layer_norm_eps.to_bits(), 1e-24f64.to_bits());
    }

    #[test]
    fn a_padding_token_may_be_absent_and_may_be_null() {
        let found = "\"pad_token_id\": 0,";
        let with = |entry: &str| read(&MBERT.replace(found, entry));
        for (entry, expected) in [
            (found, Some(0)),
            ("", Some(0)),
            ("\"pad_token_id\": 3,", Some(3)),
            ("\"pad_token_id\": null,", None),
        ] {
            let config = with(entry).unwrap();
            assert_eq!(config.pad_token_id, expected, "{entry}");
            let saved = config.to_json("BertForSequenceClassification", DType::F32);
            assert_eq!(saved["pad_token_id"], serde_json::json!(expected));
            assert_eq!(read(&saved.to_string()).unwrap(), config);
        }
        let message = with("\"pad_token_id\": 119547,").unwrap_err().to_string();
        assert!(message.contains("`pad_token_id`: expected a token below"), "{message}");
    }

    #[test]
    fn classes_are_named_or_counted() {
        let labels = |entries: &str| {
            let config = read(&MBERT.replacen('{', &format!("{{{entries},"), 1)).unwrap();
            config.id2label.into_values().collect::<Vec<_>>()
        };
        assert_eq!(labels(r#""num_labels": 3"#), ["LABEL_0", "LABEL_1", "LABEL_2"]);
        assert_eq!(labels(r#""num_labels": 1, "id2label": null"#), ["LABEL_0"]);
        assert_eq!(labels(r#""num_labels": null, "id2label": null"#), ["LABEL_0", "LABEL_1"]);
        assert_eq!(
            labels(r#""id2label": {"0": "bad", "1": "good"}, "num_labels": 5"#),
            ["bad", "good"]
        );
    }

    #[test]
    fn what_is_not_implemented_is_refused_by_name() {
        for (from, to, expected) in [
            (
                "\"directionality\": \"bidi\"",
                "\"num_labels\": 0",
                "`num_labels`: expected a number from 1 to 100000, found 0",
            ),
            ("\"bert\"", "\"roberta\"", "`model_type`: expected bert, found roberta"),
            ("\"gelu\"", "\"quick_gelu\"", "quick_gelu"),
            (
                "\"hidden_size\": 768",
                "\"hidden_size\": 770",
                "`num_attention_heads`: expected a divisor",
            ),
            ("\"vocab_size\": 119547", "\"vocab\": 119547", "vocab_size"),
            (
                "\"vocab_size\": 119547",
                "\"vocab_size\": 18446744073709551615",
                "`vocab_size`: expected a number from 1 to 100000000, found 18446744073709551615",
            ),
            ("\"num_hidden_layers\": 12", "\"num_hidden_layers\": 0", "from 1 to 1000, found 0"),
            (
                "\"initializer_range\": 0.02",
                "\"initializer_range\": 1e300",
                "`initializer_range`: expected a number from 0e0 to 1, found 1e300",
            ),
            ("\"initializer_range\": 0.02", "\"initializer_range\": -0.02", "`initializer_range`"),
            ("\"layer_norm_eps\": 1e-12", "\"layer_norm_eps\": 1e-50", "`layer_norm_eps`"),
            (
                "\"directionality\": \"bidi\"",
                "\"position_embedding_type\": \"relative_key\"",
                "`position_embedding_type`: expected absolute, found relative_key",
            ),
            (
                "\"directionality\": \"bidi\"",
                "\"position_embedding_type\": null",
                "`position_embedding_type`: expected absolute, found null",
            ),
        ] {
            assert!(MBERT.contains(from));
            let message = read(&MBERT.replacen(from, to, 1)).unwrap_err().to_string();
            assert!(message.contains(expected) && message.contains("config.json"), "{message}");
        }
    }
}
