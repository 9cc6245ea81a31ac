use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::document::{Node, Value};
use crate::grid::is_trial_recipe;
use crate::method::read_method;
use crate::numerics;
use crate::reader::{FromNode, Reader};
use crate::{ConfigError, Document, MethodConfig, Origin, Problem, sha256_hex};

/// The most encoder layers there may be.
pub(crate) const MAX_LAYERS: usize = 256;

/// The most passes over the training reviews: more than any training takes, and few enough for their
/// steps to be counted.
pub(crate) const MAX_EPOCHS: usize = 1_000_000;

/// One run, fully resolved: everything that decides its result.
///
/// Written to the run directory as `config.toml` and read back by `nsmc train`. Two runs with equal
/// configurations are the same run ([`Self::identity`]).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExperimentConfig {
    /// Decides new weights, data order and dropout; nothing else is seeded.
    pub seed: u64,
    /// The name of the profile's recipe that the run was resolved with; empty where there is none. A
    /// label for tables, no part of the run's identity.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub recipe: String,
    /// The last change of this program that makes the configuration come to other numbers: what was run
    /// before it is another run ([`Self::changed_since`]). 1 before all of them.
    #[serde(default = "numerics::first", skip_serializing_if = "numerics::is_first")]
    pub numerics: u32,
    /// Where the weights come from.
    pub model: ModelConfig,
    /// What is trained and tested on.
    pub data: DataConfig,
    /// What is fine-tuned.
    #[serde(deserialize_with = "method")]
    pub method: MethodConfig,
    /// How it is trained.
    pub training: TrainingConfig,
    /// How it is tested.
    pub evaluation: EvaluationConfig,
}

/// A method, or an error with the key: of a variant that is not known, serde names none.
fn method<'de, D: Deserializer<'de>>(deserializer: D) -> Result<MethodConfig, D::Error> {
    let method = MethodConfig::deserialize(deserializer);
    method.map_err(|error| D::Error::custom(format!("`method`: {error}")))
}

/// Where the weights come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "source", rename_all = "lowercase")]
pub enum ModelConfig {
    /// A pre-trained BERT in Hugging Face layout.
    Pretrained {
        /// Its name in `models/manifest.toml`, or the folder as given.
        name: String,
        /// The hub's commit, or a sha256 over a local folder's weights, configuration and tokenizer
        /// ([`WeightsKind::sha256`](crate::WeightsKind::sha256)). Checked on load.
        revision: String,
        /// The folder on this machine. No part of the run's identity.
        path: PathBuf,
    },
    /// A BERT with random weights and a WordPiece vocabulary trained on the training reviews.
    Scratch(ScratchModel),
}

/// The shape of a BERT without pre-training. The names are those of Hugging Face's `config.json`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScratchModel {
    /// Size of the WordPiece vocabulary, special tokens included.
    pub vocab_size: usize,
    /// Width of the hidden states.
    pub hidden_size: usize,
    /// Number of encoder layers.
    pub num_hidden_layers: usize,
    /// Attention heads per layer; divides `hidden_size`.
    pub num_attention_heads: usize,
    /// Width of the feed-forward layer.
    pub intermediate_size: usize,
    /// Longest sequence the position embeddings allow.
    pub max_position_embeddings: usize,
    /// Dropout of hidden states.
    pub hidden_dropout_prob: f64,
    /// Dropout of attention probabilities.
    pub attention_probs_dropout_prob: f64,
}

/// What is trained and tested on: delimited text files with a text and a label column.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DataConfig {
    /// A name in `datasets/manifest.toml`, or any name for files given in the profile.
    pub dataset: String,
    /// Column of the review's id; empty if there is none, then a review is known by its text.
    pub id_column: String,
    /// Column of the text.
    pub text_column: String,
    /// Column of the label.
    pub label_column: String,
    /// The labels as they stand in the file; a label's place is its class index.
    pub labels: Vec<String>,
    /// The same classes in words, for tables.
    pub label_names: Vec<String>,
    /// Field delimiter: one character.
    pub delimiter: String,
    /// Whether `"` quotes fields (CSV) or is a character like any other (NSMC).
    pub quoting: bool,
    /// Reviews taken from the training file. Subsets are stratified and nested.
    pub train_size: Rows,
    /// Reviews taken from the test file.
    pub test_size: Rows,
    /// Share of the training reviews held out for validation; `0` holds out none.
    pub validation_fraction: f64,
    /// Most tokens a review may have, `[CLS]` and `[SEP]` included; longer ones are cut.
    pub max_length: usize,
    /// The training file.
    pub train: DataFile,
    /// The test file.
    pub test: DataFile,
}

impl DataConfig {
    /// The most classes there may be.
    pub const MAX_LABELS: usize = 1_000;
}

/// How many rows of a file are taken: a number, or `"all"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// Every row.
    All,
    /// So many rows, which the file must have.
    Exactly(usize),
}

/// A data file and what it must hold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DataFile {
    /// Relative to the workspace. No part of the run's identity.
    pub path: PathBuf,
    /// sha256 of the content, checked on load.
    pub sha256: String,
    /// Documented number of rows per class, in the order of `labels`, checked on load; empty if
    /// none are documented.
    pub class_counts: Vec<usize>,
}

/// How a run is trained. The names are those of transformers' `TrainingArguments`, but for
/// `train_batch_size`, `optimizer`, `precision` and `selection`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainingConfig {
    /// Passes over the training reviews.
    pub num_train_epochs: usize,
    /// Reviews per optimiser step.
    pub train_batch_size: usize,
    /// Highest learning rate; from there it falls linearly to 0.
    pub learning_rate: f64,
    /// Share of the steps in which the learning rate rises from 0.
    pub warmup_ratio: f64,
    /// Flavour of AdamW.
    pub optimizer: Optimizer,
    /// Decay of the first moment.
    pub adam_beta1: f64,
    /// Decay of the second moment.
    pub adam_beta2: f64,
    /// Added to the denominator.
    pub adam_epsilon: f64,
    /// Decoupled weight decay; never applied to biases and LayerNorm parameters.
    pub weight_decay: f64,
    /// The gradient's global norm is scaled down to this; `0` leaves it as it is.
    pub max_grad_norm: f64,
    /// In what matrix products round their factors.
    #[serde(default, skip_serializing_if = "Precision::is_default")]
    pub precision: Precision,
    /// Which epoch's model is tested.
    pub selection: Selection,
    /// Steps between two checkpoints to go on from; `0` makes them after epochs alone. No part of the
    /// run's identity.
    pub save_steps: usize,
}

/// In what matrix products round their factors. Weights, gradients and moments are float32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// float32; on a GPU with tensor cores TF32.
    #[default]
    Float32,
    /// bfloat16, on a GPU alone.
    Bf16,
}

impl Precision {
    const CHOICES: [(&'static str, Self); 2] = [("float32", Self::Float32), ("bf16", Self::Bf16)];

    /// As configurations and command lines write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Float32 => "float32",
            Self::Bf16 => "bf16",
        }
    }

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl FromStr for Precision {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let choice = Self::CHOICES.into_iter().find(|(name, _)| *name == text);
        choice.map(|(_, precision)| precision).ok_or_else(|| "expected float32 or bf16".into())
    }
}

/// Flavour of AdamW. They differ in where epsilon stands, which the first steps feel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Optimizer {
    /// `torch.optim.AdamW`: epsilon outside the bias correction.
    AdamwTorch,
    /// `transformers.AdamW`, removed from recent releases: epsilon inside the bias correction, and
    /// the weights decay after the step.
    AdamwHf,
}

impl Optimizer {
    /// As a configuration names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::AdamwTorch => "adamw_torch",
            Self::AdamwHf => "adamw_hf",
        }
    }
}

/// Which epoch's model is tested.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Selection {
    /// The model after the last epoch.
    Last,
    /// The model with the highest validation accuracy, the earliest of equals.
    Best,
}

/// How a run is tested.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvaluationConfig {
    /// Reviews per forward pass. Decides speed, not results.
    pub eval_batch_size: usize,
    /// Batch of the batch-mean metrics, as the paper's evaluation loop averaged them.
    pub metric_batch_size: usize,
}

impl ExperimentConfig {
    /// Reads a resolved configuration, as a run directory holds it.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        Self::from_document(&Document::read(path)?)
    }

    /// Reads a complete document. Every key is known and required.
    pub fn from_document(document: &Document) -> Result<Self, ConfigError> {
        if let Some(key) =
            ["grid", "override"].into_iter().find(|key| !document.keys(key).is_empty())
        {
            return Err(ConfigError::Problems(vec![Problem {
                origin: document.root.origin.clone(),
                key: key.into(),
                message:
                    "expected one run's configuration, found a profile: `cargo xtask train` and \
                          `cargo xtask reproduce` run it with `--profile NAME`"
                        .into(),
            }]));
        }
        let mut reader = Reader::new(&document.root);
        let seed = reader.get("seed");
        let recipe = if reader.has("recipe") { reader.get("recipe") } else { String::new() };
        let numerics = numerics::read(&mut reader);
        let model = reader.table("model", read_model);
        let data = reader.table("data", read_data);
        let method = reader.table("method", read_method);
        let training = reader.table("training", read_training);
        let evaluation = reader.table("evaluation", read_evaluation);
        if let (Some(data), Some(training)) = (&data, &training)
            && training.selection == Selection::Best
            && data.validation_fraction == 0.0
            && reader.is_sound("data.validation_fraction")
        {
            reader.problem(
                "training",
                "`selection = \"best\"` needs a validation split, but `data.validation_fraction` is 0",
            );
        }
        let config = (|| {
            Some(Self {
                seed,
                recipe,
                numerics,
                model: model?,
                data: data?,
                method: method?,
                training: training?,
                evaluation: evaluation?,
            })
        })();
        reader.finish(config)
    }

    /// The configuration as TOML; [`Self::read`] reads it back.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("a configuration is representable in TOML")
    }

    /// sha256 over everything that decides the result: equal for equal runs, wherever their files
    /// lie. A baseline's result is decided by data and method alone.
    pub fn identity(&self) -> String {
        let mut config = self.deciding();
        if config.method.is_baseline() {
            config.data.max_length = 0;
            let decides = (config.data, config.method, config.evaluation.metric_batch_size);
            let json = serde_json::to_vec(&decides);
            return sha256_hex(&json.expect("a configuration is representable in JSON"));
        }
        sha256_hex(&serde_json::to_vec(&config).expect("a configuration is representable in JSON"))
    }

    /// The same without what decides no result: places of files, the recipe's name, when checkpoints
    /// are made.
    fn deciding(&self) -> Self {
        let mut config = self.without_paths();
        config.recipe = String::new();
        config.method = config.method.without_places();
        config.training.save_steps = 0;
        config
    }

    /// What runs share that are the same but for their seeds: what decides their results, but for the
    /// seed. A run that was tested in other batches has another identity, and is the same experiment.
    #[must_use]
    pub fn of_any_seed(&self) -> Self {
        let mut config = Self { seed: 0, ..self.deciding() };
        config.evaluation.eval_batch_size = 0;
        config
    }

    /// The same without where its files lie on this machine.
    #[must_use]
    pub fn without_paths(&self) -> Self {
        let mut config = self.clone();
        for path in config.paths_mut() {
            *path = PathBuf::new();
        }
        config
    }

    /// Where files lie.
    pub fn paths_mut(&mut self) -> Vec<&mut PathBuf> {
        let mut paths = vec![&mut self.data.train.path, &mut self.data.test.path];
        if let ModelConfig::Pretrained { path, .. } = &mut self.model {
            paths.push(path);
        }
        paths.extend(self.method.sources_mut().into_iter().map(|source| &mut source.path));
        paths
    }

    /// The same with files where `assignments` say that they lie: `data.train.path=FILE`, as `--set`
    /// takes it. Nothing else of a run can be set.
    pub fn relocated(&self, assignments: &[String]) -> Result<Self, ConfigError> {
        let mut config = self.clone();
        let mut document = Document::parse(&self.to_toml(), Path::new("config.toml"))?;
        for assignment in assignments {
            document.set(assignment)?;
            config = Self::from_document(&document)?;
            if config.without_paths() != self.without_paths() {
                return Err(ConfigError::Problems(vec![Problem {
                    origin: Origin::Argument(format!("--set {assignment}")),
                    key: assignment.split('=').next().unwrap_or_default().trim().into(),
                    message: format!(
                        "expected a place of what the run read ({}); all else is as it was run",
                        self.places().join(", ")
                    ),
                }]));
            }
        }
        Ok(config)
    }

    /// The keys that say where files lie.
    fn places(&self) -> Vec<String> {
        let mut places = vec!["data.train.path".into(), "data.test.path".into()];
        if let ModelConfig::Pretrained { .. } = &self.model {
            places.push("model.path".into());
        }
        let sources = self.method.sources_by_key().into_iter();
        places.extend(sources.map(|(key, ..)| format!("{key}.path")));
        places
    }

    /// Whether the run is one that a candidate was chosen by ([`Trials`](crate::Trials)): what it
    /// came to is no result.
    pub fn is_trial(&self) -> bool {
        is_trial_recipe(&self.recipe)
    }

    /// The run's name: method, training size, seed and the first eight digits of its identity. A
    /// baseline has no seed.
    pub fn run_id(&self) -> String {
        let (method, size) = (self.method.name(), self.data.train_size);
        if self.method.is_baseline() {
            return format!("{method}-{size}-{}", &self.identity()[..8]);
        }
        format!("{method}-{size}-s{}-{}", self.seed, &self.identity()[..8])
    }
}

impl std::fmt::Display for Rows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Exactly(rows) => write!(f, "{rows}"),
        }
    }
}

impl Serialize for Rows {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::All => serializer.serialize_str("all"),
            Self::Exactly(rows) => serializer.serialize_u64(*rows as u64),
        }
    }
}

impl<'de> Deserialize<'de> for Rows {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Repr {
            Number(usize),
            Word(String),
        }
        match Repr::deserialize(deserializer)? {
            Repr::Number(rows) => Ok(Self::Exactly(rows)),
            Repr::Word(word) if word == "all" => Ok(Self::All),
            Repr::Word(word) => {
                Err(D::Error::custom(format!("expected a number or \"all\", found \"{word}\"")))
            }
        }
    }
}

impl FromNode for Rows {
    fn expected() -> String {
        "a number of rows from 1, or \"all\"".into()
    }
    fn from_node(node: &Node) -> Option<Self> {
        match &node.value {
            Value::Integer(rows) => {
                usize::try_from(*rows).ok().filter(|&rows| rows > 0).map(Self::Exactly)
            }
            Value::String(word) if word == "all" => Some(Self::All),
            _ => None,
        }
    }
    fn placeholder() -> Self {
        Self::All
    }
}

pub(crate) fn read_model(model: &mut Reader<'_>) -> ModelConfig {
    #[derive(Clone, Copy)]
    enum Source {
        Pretrained,
        Scratch,
    }
    let source =
        model.choice("source", &[("pretrained", Source::Pretrained), ("scratch", Source::Scratch)]);
    if !model.is_sound("source") {
        // Which keys belong here is not known.
        model.entries();
        let path = PathBuf::new();
        return ModelConfig::Pretrained { name: String::new(), revision: String::new(), path };
    }
    match source {
        Source::Pretrained => ModelConfig::Pretrained {
            name: model.get("name"),
            revision: model.get("revision"),
            path: PathBuf::from(model.get::<String>("path")),
        },
        Source::Scratch => ModelConfig::Scratch(read_scratch(model)),
    }
}

fn read_scratch(model: &mut Reader<'_>) -> ScratchModel {
    let scratch = ScratchModel {
        vocab_size: model.within("vocab_size", 100..=1_000_000),
        hidden_size: model.within("hidden_size", 1..=16_384),
        num_hidden_layers: model.within("num_hidden_layers", 1..=MAX_LAYERS),
        num_attention_heads: model.within("num_attention_heads", 1..=256),
        intermediate_size: model.within("intermediate_size", 1..=65_536),
        max_position_embeddings: model.within("max_position_embeddings", 3..=65_536),
        hidden_dropout_prob: model.within("hidden_dropout_prob", 0.0..1.0),
        attention_probs_dropout_prob: model.within("attention_probs_dropout_prob", 0.0..1.0),
    };
    if scratch.num_attention_heads > 0
        && !scratch.hidden_size.is_multiple_of(scratch.num_attention_heads)
    {
        model.problem(
            "num_attention_heads",
            format!("expected a divisor of `hidden_size` ({})", scratch.hidden_size),
        );
    }
    scratch
}

fn are_different(names: &[String]) -> bool {
    names.iter().enumerate().all(|(index, name)| !names[..index].contains(name))
}

fn read_data(data: &mut Reader<'_>) -> DataConfig {
    let labels: Vec<String> = data.get_if(
        "labels",
        "an array of 2 to 1000 different strings, the labels as they stand in the file",
        |labels: &Vec<String>| {
            (2..=DataConfig::MAX_LABELS).contains(&labels.len()) && are_different(labels)
        },
    );
    let count = data.is_sound("labels").then_some(labels.len());
    let per_label = match count {
        None => "an array of different strings, one per label".into(),
        Some(count) => format!("an array of {count} different strings, one per label"),
    };
    let one_per_label = |found: usize| count.is_none_or(|count| count == found);
    let read_file = |file: &mut Reader<'_>| DataFile {
        path: PathBuf::from(file.get::<String>("path")),
        sha256: file.sha256("sha256"),
        class_counts: file.get_if(
            "class_counts",
            "an array with one count per label, or [] if none are documented",
            |counts: &Vec<usize>| counts.is_empty() || one_per_label(counts.len()),
        ),
    };
    let train = data.table("train", read_file);
    let test = data.table("test", read_file);
    let missing = || DataFile { path: PathBuf::new(), sha256: String::new(), class_counts: vec![] };
    let label_names: Vec<String> = data.get_if("label_names", &per_label, |names: &Vec<String>| {
        one_per_label(names.len()) && are_different(names)
    });
    for (index, name) in label_names.iter().enumerate() {
        if name.trim().is_empty() || name.contains(char::is_control) {
            // They stand in tables of tab-separated lines.
            let message = format!(
                "expected a class's name, without tabs, line breaks and other control characters, \
                 found {name:?}"
            );
            data.problem_of_item("label_names", index, message);
        }
    }
    DataConfig {
        dataset: data.get("dataset"),
        id_column: data.get("id_column"),
        text_column: data.get("text_column"),
        label_column: data.get("label_column"),
        label_names,
        delimiter: data.get_if("delimiter", "one ASCII character", |text: &String| {
            text.len() == 1 && text.is_ascii()
        }),
        quoting: data.get("quoting"),
        train_size: data.get("train_size"),
        test_size: data.get("test_size"),
        validation_fraction: data.within("validation_fraction", 0.0..=0.5),
        max_length: data.within("max_length", 3..=65_536),
        train: train.unwrap_or_else(missing),
        test: test.unwrap_or_else(missing),
        labels,
    }
}

fn read_training(training: &mut Reader<'_>) -> TrainingConfig {
    TrainingConfig {
        num_train_epochs: training.within("num_train_epochs", 1..=MAX_EPOCHS),
        train_batch_size: training.within("train_batch_size", 1..),
        learning_rate: training
            .within("learning_rate", (Bound::Excluded(0.0), Bound::Included(1.0))),
        warmup_ratio: training.within("warmup_ratio", 0.0..=1.0),
        optimizer: training.choice(
            "optimizer",
            &[Optimizer::AdamwTorch, Optimizer::AdamwHf]
                .map(|optimizer| (optimizer.name(), optimizer)),
        ),
        adam_beta1: training.within("adam_beta1", 0.0..1.0),
        adam_beta2: training.within("adam_beta2", 0.0..1.0),
        adam_epsilon: training.within("adam_epsilon", (Bound::Excluded(0.0), Bound::Included(1.0))),
        weight_decay: training.within("weight_decay", 0.0..=1.0),
        max_grad_norm: training.within("max_grad_norm", 0.0..),
        precision: match training.has("precision") {
            true => training.choice("precision", &Precision::CHOICES),
            false => Precision::default(),
        },
        selection: training
            .choice("selection", &[("last", Selection::Last), ("best", Selection::Best)]),
        save_steps: training.within("save_steps", 0..),
    }
}

fn read_evaluation(evaluation: &mut Reader<'_>) -> EvaluationConfig {
    EvaluationConfig {
        eval_batch_size: evaluation.within("eval_batch_size", 1..),
        metric_batch_size: evaluation.within("metric_batch_size", 1..),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMPLETE: &str = r#"
seed = 42
[model]
source = "scratch"
vocab_size = 8000
hidden_size = 128
num_hidden_layers = 2
num_attention_heads = 2
intermediate_size = 512
max_position_embeddings = 128
hidden_dropout_prob = 0.1
attention_probs_dropout_prob = 0.1
[data]
dataset = "nsmc"
id_column = "id"
text_column = "document"
label_column = "label"
labels = ["0", "1"]
label_names = ["negative", "positive"]
delimiter = "\t"
quoting = false
train_size = 2000
test_size = "all"
validation_fraction = 0.1
max_length = 128
[data.train]
path = "datasets/nsmc/ratings_train.txt"
sha256 = "e03b7d14e9e41be8d464a28057cd25d7396c53e67aa7fd5f7e552c59b0ee2940"
class_counts = [75173, 74827]
[data.test]
path = "datasets/nsmc/ratings_test.txt"
sha256 = "8ac9f64052f11dbf6ae0acb5e038f03d90a76f0eda7820cfb3a92d02edfcebda"
class_counts = []
[method]
name = "vanilla"
[training]
num_train_epochs = 4
train_batch_size = 32
learning_rate = 2e-5
warmup_ratio = 0.0
optimizer = "adamw_hf"
adam_beta1 = 0.9
adam_beta2 = 0.999
adam_epsilon = 1e-8
weight_decay = 0.0
max_grad_norm = 1.0
selection = "last"
save_steps = 0
[evaluation]
eval_batch_size = 64
metric_batch_size = 32
"#;

    fn read(text: &str) -> Result<ExperimentConfig, ConfigError> {
        ExperimentConfig::from_document(&Document::parse(text, Path::new("run.toml")).unwrap())
    }

    #[test]
    fn a_resolved_configuration_survives_being_written_and_read() {
        let config = read(COMPLETE).unwrap();
        assert_eq!(read(&config.to_toml()).unwrap(), config);
        assert_eq!(config.training.learning_rate.to_bits(), 2e-5f64.to_bits());
    }

    #[test]
    fn a_run_that_a_change_of_the_program_touches_is_another_run() {
        let old = read(COMPLETE).unwrap();
        assert_eq!((old.training.weight_decay, old.numerics, old.todays_numerics()), (0.0, 1, 1));
        assert!(old.changed_since().is_empty());
        assert!(!old.to_toml().contains("numerics"), "as programs before wrote it");

        let decays = COMPLETE.replace("weight_decay = 0.0", "weight_decay = 0.01");
        let old = read(&decays).unwrap();
        assert_eq!((old.numerics, old.todays_numerics()), (1, 2));
        let [(en, ko)] = old.changed_since()[..] else { panic!("{:?}", old.changed_since()) };
        assert!(en.contains("no longer decay") && ko.contains("weight decay"), "{en} {ko}");
        let new = read(&format!("numerics = 2{decays}")).unwrap();
        assert!(new.changed_since().is_empty());
        assert_ne!(new.run_id(), old.run_id());
        assert_eq!(read(&new.to_toml()).unwrap(), new);

        let baseline = ExperimentConfig { method: MethodConfig::Majority, ..old };
        assert_eq!(baseline.todays_numerics(), 1, "nothing of it decays");
    }

    #[test]
    fn all_mistakes_are_reported_at_once_with_their_lines() {
        let text = COMPLETE
            .replace("learning_rate = 2e-5", "learning_rat = 2e-5")
            .replace("hidden_size = 128", "hidden_size = \"wide\"")
            .replace("optimizer = \"adamw_hf\"", "optimizer = \"sgd\"")
            .replace("[evaluation]\neval_batch_size = 64", "[evaluation]")
            .replace("validation_fraction = 0.1", "validation_fraction = 0.9");
        let message = read(&text).unwrap_err().to_string();
        for expected in [
            "6 mistakes",
            "run.toml:6: `model.hidden_size`: expected an integer from 1 to 16384, found the string \"wide\"",
            "run.toml:24: `data.validation_fraction`: expected a number from 0 to 0.5, found the number 0.9",
            "run.toml:36: `training.learning_rate`: missing: expected a number above 0 to 1",
            "run.toml:39: `training.learning_rat`: unknown key; did you mean `learning_rate`?",
            "run.toml:41: `training.optimizer`: expected \"adamw_torch\" or \"adamw_hf\", found the string \"sgd\"",
            "run.toml:49: `evaluation.eval_batch_size`: missing: expected an integer from 1",
        ] {
            assert!(message.contains(expected), "{expected}\nis not in\n{message}");
        }
    }

    #[test]
    fn a_librarys_name_of_a_key_is_answered_with_the_key() {
        for (of, instead, expected) in [
            (
                "train_batch_size = 32",
                "train_batch_size = 32\nper_device_train_batch_size = 32",
                "run.toml:39: `training.per_device_train_batch_size`: unknown key; transformers' \
                 `per_device_train_batch_size` is `training.train_batch_size` here: texts per step, \
                 on all GPUs together",
            ),
            (
                "warmup_ratio = 0.0",
                "warmup_ratio = 0.0\nwarmup_steps = 10",
                "`training.warmup_steps`: unknown key; transformers' `warmup_steps` is \
                 `training.warmup_ratio` here: a share of the steps",
            ),
            (
                "seed = 42",
                "seed = 42\nlora_alpha = 16",
                "run.toml:3: `lora_alpha`: unknown key; PEFT's `lora_alpha` is `method.alpha` here",
            ),
            (
                "seed = 42",
                "seed = 42\nlearning_rate = 16",
                "run.toml:3: `learning_rate`: unknown key; it is `training.learning_rate`",
            ),
        ] {
            assert_eq!(mistakes(of, instead).len(), 1);
            let found = mistakes(of, instead).remove(0);
            assert!(found.ends_with(expected), "{expected}\n{found}");
        }
        let mut document = Document::parse(COMPLETE, Path::new("run.toml")).unwrap();
        document.set("reduction_factor=8").unwrap();
        assert_eq!(
            ExperimentConfig::from_document(&document).unwrap_err().to_string(),
            "--set reduction_factor=8: `reduction_factor`: unknown key; it is \
             `method.adapter.reduction_factor`"
        );
    }

    /// The mistakes in [`COMPLETE`] with one text in the place of another, a line each.
    fn mistakes(of: &str, instead: &str) -> Vec<String> {
        assert!(COMPLETE.contains(of), "{of}");
        let message = read(&COMPLETE.replace(of, instead)).unwrap_err().to_string();
        message.lines().filter(|line| !line.ends_with(" mistakes")).map(str::to_owned).collect()
    }

    #[test]
    fn what_follows_from_a_mistake_is_none() {
        let message = read(
            &COMPLETE
                .replace("selection = \"last\"", "selection = \"best\"")
                .replace("validation_fraction = 0.1", "validation_fraction = 0.9"),
        );
        let message = message.unwrap_err().to_string();
        assert!(message.contains("`data.validation_fraction`: expected a number"), "{message}");
        assert!(!message.contains("needs a validation split"), "{message}");
        for (of, instead) in [
            ("labels = [\"0\", \"1\"]", "labels = [0, 1]"),
            ("labels = [\"0\", \"1\"]", "labels = [\"0\"]"),
            ("labels = [\"0\", \"1\"]", "labels = [\"0\", \"0\"]"),
            ("labels = [\"0\", \"1\"]\n", ""),
            ("name = \"vanilla\"", "name = \"vanila\"\nrank = 4"),
            ("source = \"scratch\"", "source = \"scrach\""),
        ] {
            let found = mistakes(of, instead);
            assert_eq!(found.len(), 1, "{instead}: {found:?}");
        }
    }

    #[test]
    fn of_an_array_the_item_is_named_that_is_wrong() {
        for (of, instead, expected) in [
            (
                "labels = [\"0\", \"1\"]",
                "labels = [\"0\",\n1]",
                "run.toml:19: `data.labels[1]`: expected a string, found the integer 1; strings have \
                 quotes: `[\"0\", \"1\"]`",
            ),
            (
                "labels = [\"0\", \"1\"]",
                "labels = [\"0\", \"0\"]",
                "`data.labels`: expected an array of 2 to 1000 different strings, the labels as they \
                 stand in the file, found the array [\"0\", \"0\"]",
            ),
            (
                "[75173, 74827]",
                "[75173, -1]",
                "`data.train.class_counts[1]`: expected an integer from 0, found the integer -1",
            ),
            (
                "[75173, 74827]",
                "[75173]",
                "one count per label, or [] if none are documented, found the array [75173]",
            ),
            (
                "name = \"vanilla\"",
                "name = \"head\"\ntrains = [\"classifier\"]",
                "`method.trains[0]`: expected \"head\", \"pooler\", \"layer_norm\" or \"embeddings\", \
                 found the string \"classifier\"",
            ),
            ("seed = 42", "seed = -1", "`seed`: expected an integer from 0, found the integer -1"),
            (
                "num_train_epochs = 4",
                "num_train_epochs = 9223372036854775807",
                "`training.num_train_epochs`: expected an integer from 1 to 1000000, found the \
                 integer 9223372036854775807",
            ),
            (
                "dataset = \"nsmc\"",
                "dataset = 5",
                "`data.dataset`: expected a string, found the integer 5; strings have quotes: `\"5\"`",
            ),
            // What no quotes would mend.
            ("name = \"vanilla\"", "name = 5", "or \"tfidf\", found the integer 5"),
        ] {
            let found = mistakes(of, instead);
            assert!(found.len() == 1 && found[0].ends_with(expected), "{expected}\n{found:#?}");
        }
        let many = format!("[{}]", "12345, ".repeat(100));
        let found = mistakes("[75173, 74827]", &many);
        assert!(found[0].ends_with("found an array of 100"), "{found:?}");
    }

    #[test]
    fn an_argument_says_how_it_is_quoted() {
        let message = |assignment: &str| {
            let mut document = Document::parse(COMPLETE, Path::new("run.toml")).unwrap();
            document.set(assignment).unwrap();
            ExperimentConfig::from_document(&document).unwrap_err().to_string()
        };
        for (assignment, expected) in [
            ("data.test.path=123", "quotes: `--set 'data.test.path=\"123\"'`"),
            ("data.id_column = true", "quotes: `--set 'data.id_column=\"true\"'`"),
            ("data.dataset=2024-01-01", "quotes: `--set 'data.dataset=\"2024-01-01\"'`"),
            ("data.dataset=1_000", "quotes: `--set 'data.dataset=\"1_000\"'`"),
            ("data.labels=[0, 1]", "quotes: `--set 'data.labels=[\"0\", \"1\"]'`"),
            ("data.test={path=5}", "quotes: `--set 'data.test.path=\"5\"'`"),
        ] {
            let message = message(assignment);
            assert!(message.ends_with(expected), "{expected}\n{message}");
        }
        assert!(message("training.optimizer=5").ends_with("found the integer 5"));
    }

    #[test]
    fn a_class_has_a_name_that_fits_into_a_table() {
        for (name, shown) in [("a\\tb", "a\\tb"), ("a\\nb", "a\\nb"), ("", ""), (" ", " ")] {
            let found = mistakes("\"positive\"", &format!("\"{name}\""));
            let expected = format!(
                "run.toml:19: `data.label_names[1]`: expected a class's name, without tabs, line \
                 breaks and other control characters, found \"{shown}\""
            );
            assert_eq!(found, [expected]);
        }
    }

    #[test]
    fn every_key_is_required() {
        let lines: Vec<&str> = COMPLETE.lines().collect();
        let keys: Vec<usize> = (0..lines.len()).filter(|&line| lines[line].contains('=')).collect();
        assert!(keys.len() > 40);
        for line in keys {
            let text = [&lines[..line], &lines[line + 1..]].concat().join("\n");
            let key = lines[line].split('=').next().unwrap().trim();
            let message = read(&text).unwrap_err().to_string();
            assert!(message.contains(key) && message.contains("missing"), "{key}: {message}");
        }
    }

    #[test]
    fn the_best_model_needs_a_validation_split() {
        let text = COMPLETE
            .replace("selection = \"last\"", "selection = \"best\"")
            .replace("validation_fraction = 0.1", "validation_fraction = 0");
        assert!(read(&text).unwrap_err().to_string().contains("needs a validation split"));
    }

    #[test]
    fn the_identity_is_that_of_the_experiment_not_of_its_place() {
        let config = read(COMPLETE).unwrap();
        let mut moved = config.clone();
        moved.data.train.path = "/elsewhere/ratings_train.txt".into();
        assert_eq!(moved.identity(), config.identity());
        // Records of before there were recipes keep their identity.
        assert!(!config.to_toml().contains("recipe"));
        let labelled = read(&format!("recipe = \"tuned\"\n{COMPLETE}")).unwrap();
        assert_eq!(labelled.recipe, "tuned");
        assert_eq!(read(&labelled.to_toml()).unwrap(), labelled);
        assert_eq!(labelled.identity(), config.identity());
        let negative = COMPLETE.replace("weight_decay = 0.0", "weight_decay = -0.0");
        assert_eq!(read(&negative).unwrap().identity(), config.identity());
        let mut other = config.clone();
        other.training.learning_rate = 5e-5;
        assert_ne!(other.identity(), config.identity());
        assert!(config.run_id().starts_with("vanilla-2000-s42-"), "{}", config.run_id());
    }
}
