use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::document::{Node, Value};
use crate::reader::{FromNode, Reader};

/// What is fine-tuned.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "lowercase")]
pub enum MethodConfig {
    /// Full fine-tuning: every weight trains.
    Vanilla,
    /// Low-rank updates of frozen layers.
    Lora(LoraMethod),
    /// A bottleneck adapter in a frozen base.
    Adapter(AdapterMethod),
    /// Bottleneck adapters under a fusion layer.
    AdapterFusion(AdapterFusionMethod),
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
    /// What trains beside LoRA.
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
    /// The head goes on from the first stage; otherwise it starts anew.
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
    /// sha256 of the weights.
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
        match self {
            Self::Vanilla => "vanilla",
            Self::Lora(_) => "lora",
            Self::Adapter(_) => "adapter",
            Self::AdapterFusion(_) => "adapterfusion",
        }
    }

    /// LoRA's rank.
    pub fn rank(&self) -> Option<usize> {
        match self {
            Self::Lora(lora) => Some(lora.rank),
            _ => None,
        }
    }

    /// The method as a table shows it.
    pub fn label(&self) -> String {
        match self {
            Self::Vanilla => "Vanilla".into(),
            Self::Lora(lora) => format!("LoRA r={}", lora.rank),
            Self::Adapter(adapter) if adapter.setup == adapter.adapter.name => "Adapter".into(),
            Self::Adapter(adapter) => format!("Adapter, {}", adapter.setup),
            Self::AdapterFusion(fusion) if fusion.is_the_papers() => "AdapterFusion".into(),
            Self::AdapterFusion(fusion) => format!("AdapterFusion, {}", fusion.setup),
        }
    }

    /// Trained weights that the run starts from.
    pub fn sources(&self) -> Vec<&Source> {
        match self {
            Self::Vanilla => Vec::new(),
            Self::Lora(lora) => lora.start.iter().collect(),
            Self::Adapter(adapter) => adapter.sources.values().collect(),
            Self::AdapterFusion(fusion) => fusion.sources.values().collect(),
        }
    }

    /// Leaves out where files lie.
    pub(crate) fn without_places(mut self) -> Self {
        let sources: Vec<&mut Source> = match &mut self {
            Self::Vanilla => Vec::new(),
            Self::Lora(lora) => lora.start.iter_mut().collect(),
            Self::Adapter(adapter) => adapter.sources.values_mut().collect(),
            Self::AdapterFusion(fusion) => fusion.sources.values_mut().collect(),
        };
        for source in sources {
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

/// The adapters that a setup names.
pub(crate) fn setup_names(setup: &str) -> Vec<&str> {
    setup
        .split(['(', ')', ','])
        .map(str::trim)
        .filter(|name| !matches!(*name, "" | "Stack" | "Fuse"))
        .collect()
}

impl FromNode for Targets {
    fn expected() -> String {
        "an array of layer names, a regular expression, or \"all-linear\"".into()
    }
    fn from_node(node: &Node) -> Option<Self> {
        match &node.value {
            Value::String(text) => Some(Self::Text(text.clone())),
            _ => Vec::from_node(node).map(Self::List),
        }
    }
    fn placeholder() -> Self {
        Self::List(Vec::new())
    }
}

impl FromNode for Part {
    fn expected() -> String {
        "\"head\", \"pooler\", \"layer_norm\" or \"embeddings\"".into()
    }
    fn from_node(node: &Node) -> Option<Self> {
        match &node.value {
            Value::String(text) => match text.as_str() {
                "head" => Some(Self::Head),
                "pooler" => Some(Self::Pooler),
                "layer_norm" => Some(Self::LayerNorm),
                "embeddings" => Some(Self::Embeddings),
                _ => None,
            },
            _ => None,
        }
    }
    fn placeholder() -> Self {
        Self::Head
    }
}

const NON_LINEARITIES: [(&str, NonLinearity); 6] = [
    ("preset", NonLinearity::Preset),
    ("relu", NonLinearity::Relu),
    ("gelu", NonLinearity::Gelu),
    ("gelu_new", NonLinearity::GeluNew),
    ("swish", NonLinearity::Swish),
    ("tanh", NonLinearity::Tanh),
];

pub(crate) fn read_method(method: &mut Reader<'_>) -> MethodConfig {
    match method
        .choice("name", &[("vanilla", 0), ("lora", 1), ("adapter", 2), ("adapterfusion", 3)])
    {
        1 => MethodConfig::Lora(read_lora(method)),
        2 => {
            let adapter = AdapterMethod {
                setup: method.get("setup"),
                head: read_head(method),
                trains: method.get("trains"),
                adapter: read_adapter(method),
                sources: read_sources(method),
            };
            check_setup(method, "setup", &adapter.setup, &adapter.adapter, &adapter.sources);
            MethodConfig::Adapter(adapter)
        }
        3 => {
            let fusion = AdapterFusionMethod {
                setup: method.get("setup"),
                adapter_setup: method.get("adapter_setup"),
                fusion: method.choice(
                    "fusion",
                    &[("dynamic", FusionKind::Dynamic), ("static", FusionKind::Static)],
                ),
                regularization: method.get("regularization"),
                unfreeze_adapters: method.get("unfreeze_adapters"),
                keep_head: method.get("keep_head"),
                head: read_head(method),
                trains: method.get("trains"),
                adapter: read_adapter(method),
                adapter_training: method
                    .table("adapter_training", |training| AdapterTraining {
                        num_train_epochs: training.within("num_train_epochs", 1..),
                        learning_rate: training
                            .within("learning_rate", (Bound::Excluded(0.0), Bound::Included(1.0))),
                    })
                    .unwrap_or(AdapterTraining { num_train_epochs: 0, learning_rate: 0.0 }),
                sources: read_sources(method),
            };
            for (key, setup) in [("setup", &fusion.setup), ("adapter_setup", &fusion.adapter_setup)]
            {
                check_setup(method, key, setup, &fusion.adapter, &fusion.sources);
            }
            if fusion.regularization && fusion.fusion == FusionKind::Static {
                method.problem(
                    "regularization",
                    "expected false: a static fusion has no value matrix to regularise",
                );
            }
            MethodConfig::AdapterFusion(fusion)
        }
        _ => MethodConfig::Vanilla,
    }
}

fn read_lora(method: &mut Reader<'_>) -> LoraMethod {
    let lora = LoraMethod {
        rank: method.within("rank", 1..=16_384),
        alpha: method.get("alpha"),
        dropout: method.within("dropout", 0.0..1.0),
        target_modules: method.get("target_modules"),
        exclude_modules: method.get("exclude_modules"),
        layers_to_transform: method.get("layers_to_transform"),
        rank_pattern: read_map(method, "rank_pattern"),
        alpha_pattern: read_map(method, "alpha_pattern"),
        use_rslora: method.get("use_rslora"),
        use_dora: method.get("use_dora"),
        bias: method.choice(
            "bias",
            &[("none", LoraBias::None), ("all", LoraBias::All), ("lora_only", LoraBias::LoraOnly)],
        ),
        trains: method.get("trains"),
        start: method.table_if_any("start", read_source),
    };
    if lora
        .start
        .as_ref()
        .is_some_and(|start| start.invertible_non_linearity != NonLinearity::Preset)
    {
        method.problem("start", "LoRA has no invertible block: expected \"preset\"");
    }
    lora
}

fn read_head(method: &mut Reader<'_>) -> Head {
    method.choice("head", &[("classifier", Head::Classifier), ("flex", Head::Flex)])
}

fn read_adapter(method: &mut Reader<'_>) -> AdapterConfig {
    let adapter = method.table("adapter", read_bottleneck);
    adapter.unwrap_or(AdapterConfig {
        name: String::new(),
        config: AdapterKind::Pfeiffer,
        reduction_factor: 1.0,
        layer_reduction_factors: BTreeMap::new(),
        leave_out: Vec::new(),
        non_linearity: NonLinearity::Preset,
        invertible: false,
        dropout: 0.0,
    })
}

pub(crate) fn read_bottleneck(adapter: &mut Reader<'_>) -> AdapterConfig {
    AdapterConfig {
        name: adapter.get_if("name", "letters, digits, `_` and `-`", |name: &String| {
            let valid = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-');
            !name.is_empty() && name.chars().all(valid)
        }),
        config: adapter.choice(
            "config",
            &[("pfeiffer", AdapterKind::Pfeiffer), ("houlsby", AdapterKind::Houlsby)],
        ),
        reduction_factor: adapter
            .within("reduction_factor", (Bound::Excluded(0.0), Bound::Unbounded)),
        layer_reduction_factors: read_map(adapter, "layer_reduction_factors"),
        leave_out: adapter.get("leave_out"),
        non_linearity: adapter.choice("non_linearity", &NON_LINEARITIES),
        invertible: adapter.get("invertible"),
        dropout: adapter.within("dropout", 0.0..1.0),
    }
}

fn read_sources(method: &mut Reader<'_>) -> BTreeMap<String, Source> {
    let sources = method.table_if_any("sources", |sources| {
        let names = sources.keys();
        let read = names.into_iter().filter_map(|name| {
            let source = sources.table(&name, read_source)?;
            Some((name, source))
        });
        read.collect()
    });
    sources.unwrap_or_default()
}

fn read_source(source: &mut Reader<'_>) -> Source {
    Source {
        from: source.get("from"),
        invertible_non_linearity: source.choice("invertible_non_linearity", &NON_LINEARITIES),
        path: PathBuf::from(source.get::<String>("path")),
        sha256: source.get("sha256"),
    }
}

/// A table from free keys to values.
fn read_map<T: FromNode>(method: &mut Reader<'_>, name: &str) -> BTreeMap<String, T> {
    let read = method.table(name, |map| {
        let names = map.keys();
        names.into_iter().map(|name| (name.clone(), map.get(&name))).collect()
    });
    read.unwrap_or_default()
}

/// Every adapter of a setup is the one that trains, or has a source.
fn check_setup(
    method: &mut Reader<'_>,
    key: &str,
    setup: &str,
    adapter: &AdapterConfig,
    sources: &BTreeMap<String, Source>,
) {
    let names = setup_names(setup);
    for name in &names {
        if *name != adapter.name && !sources.contains_key(*name) {
            method.problem(
                key,
                format!(
                    "`{name}` is neither the adapter that trains (`{}`) nor has it a source: give \
                     one in [method.sources.{name}]",
                    adapter.name
                ),
            );
        }
    }
    if key == "adapter_setup" && !names.contains(&adapter.name.as_str()) {
        method.problem(key, format!("the adapter that trains, `{}`, is not in it", adapter.name));
    }
}
