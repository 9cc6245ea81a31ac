mod baseline;
mod kind;
mod read;
mod setup;

pub use baseline::TfidfMethod;
pub use kind::MethodKind;
pub(crate) use read::{read_bottleneck, read_method};
pub use setup::setup_names;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What is fine-tuned.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "lowercase")]
pub enum MethodConfig {
    /// Full fine-tuning: every weight trains.
    Vanilla,
    /// A frozen base: what its features alone are worth.
    #[serde(rename = "head")]
    HeadOnly(HeadOnlyMethod),
    /// Low-rank updates of frozen layers.
    Lora(LoraMethod),
    /// A bottleneck adapter in a frozen base.
    Adapter(AdapterMethod),
    /// Bottleneck adapters under a fusion layer.
    AdapterFusion(AdapterFusionMethod),
    /// A baseline: always the most frequent class.
    Majority,
    /// A baseline: logistic regression of weighted character n-grams.
    Tfidf(TfidfMethod),
}

/// A head on a frozen base.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeadOnlyMethod {
    /// What trains.
    pub trains: Vec<Part>,
}

/// LoRA. The names are those of PEFT's `LoraConfig`, but `r` is `rank` and `lora_alpha` is `alpha`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoraMethod {
    /// Rank of the updates.
    pub rank: usize,
    /// Updates are scaled by `alpha / rank`.
    pub alpha: f64,
    /// Dropout of an update's input.
    pub dropout: f64,
    /// Which layers: names, a regular expression, or `"all-linear"`.
    pub target_modules: Targets,
    /// Which layers not; `[]` excludes none.
    pub exclude_modules: Targets,
    /// Of a list of targets, those in these encoder layers; `[]` is all.
    pub layers_to_transform: Vec<usize>,
    /// Ranks of single layers, by a regular expression for the end of their names.
    pub rank_pattern: BTreeMap<String, usize>,
    /// Alphas of single layers, likewise.
    pub alpha_pattern: BTreeMap<String, f64>,
    /// Scale by `alpha / √rank` instead.
    pub use_rslora: bool,
    /// Learn magnitudes apart from directions (DoRA).
    pub use_dora: bool,
    /// Which biases of the base train.
    pub bias: LoraBias,
    /// What trains besides LoRA.
    pub trains: Vec<Part>,
    /// Trained LoRA to start from: a folder of PEFT's, or a state dict of loralib.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start: Option<Source>,
}

/// One bottleneck adapter that trains, alone or on others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AdapterMethod {
    /// The adapters that are active, in AdapterHub's notation: `nsmc`, `Stack(ko, nsmc)`.
    pub setup: String,
    /// The head on the first token.
    pub head: Head,
    /// What trains beside the adapter.
    pub trains: Vec<Part>,
    /// The adapter that trains.
    pub adapter: AdapterConfig,
    /// Trained adapters, by their names in the setup, and a head under `head`. One for the adapter
    /// that trains is what it starts from.
    #[serde(default)]
    pub sources: BTreeMap<String, Source>,
}

/// AdapterFusion: first an adapter is trained, then the fusion of it and others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AdapterFusionMethod {
    /// The adapters that are fused, in AdapterHub's notation: `Fuse(ko, nsmc)`.
    pub setup: String,
    /// The setup in which the adapter is trained first.
    pub adapter_setup: String,
    /// What the fusion layer is made of.
    pub fusion: FusionKind,
    /// Adds AdapterTrainer's regulariser, `0.01 · ‖I - V‖²`, to the loss.
    pub regularization: bool,
    /// The fused adapters train together with the fusion.
    pub unfreeze_adapters: bool,
    /// The head goes on from the first stage; otherwise its classifier starts anew. A pooler that
    /// trains (`trains`) is the model's, not the head's, and goes on in either case.
    pub keep_head: bool,
    /// The head on the first token.
    pub head: Head,
    /// What trains beside adapter and fusion, in both stages.
    pub trains: Vec<Part>,
    /// The adapter that is trained first.
    pub adapter: AdapterConfig,
    /// The recipe of the first stage, where it differs.
    pub adapter_training: AdapterTraining,
    /// Trained adapters, by their names in the setup, fusion layers, by those of their adapters
    /// joined by commas, and a head under `head`.
    #[serde(default)]
    pub sources: BTreeMap<String, Source>,
}

/// A bottleneck adapter. The names are those of AdapterHub's `BnConfig`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AdapterConfig {
    /// Its name in the setup.
    pub name: String,
    /// Where it stands.
    pub config: AdapterKind,
    /// `hidden_size` over the bottleneck's width.
    pub reduction_factor: f64,
    /// Layers with a reduction factor of their own.
    pub layer_reduction_factors: BTreeMap<String, f64>,
    /// Layers without adapter.
    pub leave_out: Vec<usize>,
    /// Between the two projections; `"preset"` is that of `config`.
    pub non_linearity: NonLinearity,
    /// With a NICE invertible adapter behind the embeddings.
    pub invertible: bool,
    /// Dropout of the adapter's output.
    pub dropout: f64,
}

/// What the first stage of AdapterFusion takes in the place of `training`'s keys of these names.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct AdapterTraining {
    /// Passes over the training reviews.
    pub num_train_epochs: usize,
    /// Highest learning rate.
    pub learning_rate: f64,
}

/// Where trained weights come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Source {
    /// A name in `models/manifest.toml`, or a folder or file. No part of the run's identity.
    pub from: String,
    /// Non-linearity of the adapter's invertible block; `"preset"` is the adapter's own, as
    /// AdapterHub has it from version 2 on.
    pub invertible_non_linearity: NonLinearity,
    /// The folder or file on this machine. No part of the run's identity.
    pub path: PathBuf,
    /// sha256 of the file, or over a folder's weights and their configuration
    /// ([`WeightsKind::sha256`](crate::WeightsKind::sha256)). Checked on load.
    pub sha256: String,
}

/// Layers by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Targets {
    /// Full names or their ends.
    List(Vec<String>),
    /// `"all-linear"`, or a regular expression for the whole name.
    Text(String),
}

/// What can train beside a method's own parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// The classifier, or AdapterHub's head.
    Head,
    /// The pooler.
    Pooler,
    /// Every LayerNorm of the base.
    LayerNorm,
    /// The three embedding tables.
    Embeddings,
}

/// PEFT's `bias`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LoraBias {
    /// No bias trains.
    None,
    /// All do.
    All,
    /// Those of the targeted layers do.
    LoraOnly,
}

/// The head of an adapter run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Head {
    /// transformers' classifier on the pooler.
    Classifier,
    /// AdapterHub's two layers on the first token (`add_classification_head`).
    Flex,
}

/// AdapterHub's names of the adapter's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdapterKind {
    /// After the feed-forward layer (`seq_bn`).
    Pfeiffer,
    /// After attention and after the feed-forward layer (`double_seq_bn`).
    Houlsby,
}

/// AdapterHub's names of the fusion's parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FusionKind {
    /// Query, key and value.
    Dynamic,
    /// Query and key.
    Static,
}

/// A non-linearity by its name in transformers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names say it")]
pub enum NonLinearity {
    /// What the configuration or the file says.
    Preset,
    Relu,
    Gelu,
    GeluNew,
    Swish,
    Tanh,
}

impl MethodConfig {
    /// The method's name: its file in `configs/methods/`.
    pub fn name(&self) -> &'static str {
        self.kind().name()
    }

    /// LoRA's rank.
    pub fn rank(&self) -> Option<usize> {
        match self {
            Self::Lora(lora) => Some(lora.rank),
            _ => None,
        }
    }

    /// The adapters that are active, in AdapterHub's notation.
    pub fn setup(&self) -> Option<&str> {
        match self {
            Self::Adapter(adapter) => Some(&adapter.setup),
            Self::AdapterFusion(fusion) => Some(&fusion.setup),
            _ => None,
        }
    }

    /// The method as a table shows it.
    pub fn label(&self) -> String {
        match self {
            Self::Vanilla => "Vanilla".into(),
            Self::HeadOnly(head) => match head.trains.as_slice() {
                [Part::Head] => "Head only".into(),
                [Part::Head, Part::Pooler] | [Part::Pooler, Part::Head] => {
                    "Head and pooler only".into()
                }
                _ => "Head and parts of the model only".into(),
            },
            Self::Lora(lora) => format!("LoRA r={}", lora.rank),
            Self::Adapter(adapter) if adapter.setup == adapter.adapter.name => "Adapter".into(),
            Self::Adapter(adapter) => format!("Adapter, {}", adapter.setup),
            Self::AdapterFusion(fusion) if fusion.is_the_papers() => "AdapterFusion".into(),
            Self::AdapterFusion(fusion) => format!("AdapterFusion, {}", fusion.setup),
            Self::Majority => "Baseline: majority class".into(),
            Self::Tfidf(_) => "Baseline: TF-IDF, logistic regression".into(),
        }
    }

    /// Trained weights that the run starts from.
    pub fn sources(&self) -> Vec<&Source> {
        match self {
            Self::Vanilla | Self::HeadOnly(_) | Self::Majority | Self::Tfidf(_) => Vec::new(),
            Self::Lora(lora) => lora.start.iter().collect(),
            Self::Adapter(adapter) => adapter.sources.values().collect(),
            Self::AdapterFusion(fusion) => fusion.sources.values().collect(),
        }
    }

    /// The trained weights that it starts from.
    pub fn sources_mut(&mut self) -> Vec<&mut Source> {
        match self {
            Self::Vanilla | Self::HeadOnly(_) | Self::Majority | Self::Tfidf(_) => Vec::new(),
            Self::Lora(lora) => lora.start.iter_mut().collect(),
            Self::Adapter(adapter) => adapter.sources.values_mut().collect(),
            Self::AdapterFusion(fusion) => fusion.sources.values_mut().collect(),
        }
    }

    /// Leaves out where files lie.
    pub(crate) fn without_places(mut self) -> Self {
        for source in self.sources_mut() {
            source.from = String::new();
            source.path = PathBuf::new();
        }
        self
    }
}

impl AdapterFusionMethod {
    /// Whether it fuses what the paper fused: the Korean language adapter and the task's.
    pub fn is_the_papers(&self) -> bool {
        self.setup.replace(' ', "") == format!("Fuse(ko,{})", self.adapter.name)
            && self.sources.get("ko").is_some_and(|source| source.from == "ko/wiki@ukp")
    }
}
