use std::path::Path;

use nsmc_bert::Tensors;
use serde_json::{Map, Value, json};

use super::config::number_or_null;
use super::write_tensors;
use crate::bundle::Bundle;
use crate::composition::check_name;
use crate::error::check_dropout;
use crate::library_files::write_json;
use crate::{PeftError, PeftModel};

pub(super) const CONFIG: &str = "head_config.json";
/// The class whose head is the classifier on the pooler.
const CLASSIFIER: &str = "BertForSequenceClassification";
const WEIGHTS: [&str; 2] = ["model_head.safetensors", "pytorch_model_head.bin"];

/// A kind of head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadKind {
    /// transformers' classifier on the pooler.
    Classifier,
    /// AdapterHub's two layers on the first token.
    Own,
}

impl PeftModel {
    /// Loads the head of a folder or a zip archive: a classifier on the pooler, or AdapterHub's own;
    /// says which it was. It takes the place of the head that was there.
    pub fn load_head(&mut self, source: &Path) -> Result<HeadKind, PeftError> {
        let bundle = Bundle::open(source)?;
        let config = bundle.json(CONFIG)?;
        let refuse = |message: String| bundle.config_error(CONFIG, &message);
        self.check_model(&config).map_err(&refuse)?;
        let (path, tensors) = bundle.tensors(&WEIGHTS)?;
        let head = &config["config"];
        if head.is_null() {
            let class = &config["model_class"];
            if !class.is_null() && class != CLASSIFIER {
                return Err(refuse(format!(
                    "`model_class`: expected {CLASSIFIER}, found {class}: the head has no `config`, \
                     and of those of transformers' classes the classifier on the pooler is \
                     implemented"
                )));
            }
            self.check_label_order(&config["label2id"]).map_err(&refuse)?;
            return self.load_classifier(tensors, &path);
        }
        self.check_label_order(&head["label2id"]).map_err(&refuse)?;
        let name = config["name"].as_str().ok_or_else(|| refuse("no `name`".into()))?.to_owned();
        let form = (
            head["head_type"].as_str().unwrap_or_default(),
            head["layers"].as_u64().unwrap_or_default(),
            head["use_pooler"].as_bool().unwrap_or_default(),
            head["activation_function"].as_str().unwrap_or_default(),
            head["bias"].as_bool().unwrap_or(true),
        );
        let dropout_prob = number_or_null(head, "dropout_prob").map_err(&refuse)?;
        if let Some(dropout) = dropout_prob {
            check_dropout("config.dropout_prob", dropout)
                .map_err(|error| refuse(error.to_string()))?;
        }
        match form {
            ("classification", 1, true, _, true) => {
                let of_model =
                    self.bert.classifier_dropout.unwrap_or(self.bert.hidden_dropout_prob);
                if let Some(dropout) =
                    dropout_prob.filter(|dropout| (dropout - of_model).abs() > f64::EPSILON)
                {
                    return Err(refuse(format!(
                        "`config.dropout_prob`: expected null or the model's {of_model}, found \
                         {dropout}: a classifier on the pooler has the model's; set the key to null, \
                         or `classifier_dropout` in the model's config.json to {dropout}"
                    )));
                }
                let prefix = format!("heads.{name}.1.");
                let tensors = tensors
                    .into_iter()
                    .map(|(key, tensor)| (key.replace(&prefix, "classifier."), tensor));
                self.load_classifier(tensors.collect(), &path)
            }
            ("classification", 2, false, "tanh", true) => {
                check_name(&name)?;
                let mut extended = self.clone();
                extended.put_head(&name, dropout_prob, 0);
                *self = extended.load_library_tensors(tensors, &path, is_own_head)?;
                Ok(HeadKind::Own)
            }
            _ => Err(refuse(format!(
                "the head {head} is not implemented; classification heads of one layer on the \
                     pooler or of two layers with tanh are"
            ))),
        }
    }

    fn load_classifier(&mut self, tensors: Tensors, path: &Path) -> Result<HeadKind, PeftError> {
        let mut model = self.clone();
        model.remove_head();
        *self = model.load_library_tensors(tensors, path, is_classifier)?;
        Ok(HeadKind::Classifier)
    }

    /// Refuses a head with the model's classes in another order: each of its logits would be taken
    /// for another's.
    ///
    /// Names that say nothing, `LABEL_0` and so on, and names that are not the model's are passed over:
    /// which of its classes is meant cannot be told.
    fn check_label_order(&self, label2id: &Value) -> Result<(), String> {
        let mut theirs = Vec::new();
        for (label, class) in label2id.as_object().into_iter().flatten() {
            let id: Option<u64> = class.as_u64().or_else(|| class.as_str()?.parse().ok());
            let missing = || format!("`label2id`: expected a class for `{label}`, found {class}");
            theirs.push((id.ok_or_else(missing)?, label.as_str()));
        }
        theirs.sort_unstable();
        let theirs: Vec<&str> = theirs.into_iter().map(|(_, label)| label).collect();
        let ours: Vec<&str> = self.bert.id2label.values().map(String::as_str).collect();
        let same_names =
            theirs.len() == ours.len() && theirs.iter().all(|label| ours.contains(label));
        let generic = ours.iter().all(|label| {
            label.strip_prefix("LABEL_").is_some_and(|class| class.parse::<u64>().is_ok())
        });
        if !same_names || generic || theirs == ours {
            return Ok(());
        }
        Err(format!(
            "`label2id`: expected the model's classes in their order, [{}], found [{}]: put the \
             model's in the order of the head, that is `label_names` and with it `labels` of a run's \
             [data]",
            ours.join(", "),
            theirs.join(", ")
        ))
    }

    /// Writes the head into `folder`.
    pub fn save_head(&self, folder: &Path) -> Result<(), PeftError> {
        self.without_lora()?;
        let label2id: Map<String, Value> =
            self.bert.id2label.iter().map(|(id, label)| (label.clone(), (*id).into())).collect();
        let meta = if let Some(head) = &self.head {
            let head = json!({
                "head_type": "classification", "layers": 2, "activation_function": "tanh",
                "num_labels": self.bert.num_labels(), "use_pooler": false, "bias": true,
                "dropout_prob": head.dropout_prob(), "label2id": label2id,
            });
            self.meta(Some(&self.head_name), json!({"config": head}))
        } else {
            let num_labels = self.bert.num_labels();
            self.meta(None, json!({"config": null, "label2id": label2id, "num_labels": num_labels}))
        };
        write_json(folder, CONFIG, &meta)?;
        let is_saved = if self.head.is_some() { is_own_head } else { is_classifier };
        write_tensors(folder, WEIGHTS, &self.library_tensors(is_saved))
    }
}

/// Of the classifier on the pooler.
fn is_classifier(name: &str) -> bool {
    name.starts_with("classifier.")
}

/// Of AdapterHub's own head.
fn is_own_head(name: &str) -> bool {
    name.starts_with("heads.")
}
