use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::{LoraSite, PeftModel};

/// What trains; everything else is frozen. Dropout stays on in frozen layers, as in PyTorch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trains {
    /// Every weight of the base model.
    pub base: bool,
    /// These bottleneck adapters, their invertible blocks included.
    pub adapters: BTreeSet<String>,
    /// These bottleneck adapters without their invertible blocks.
    pub bottlenecks: BTreeSet<String>,
    /// These fusion layers.
    pub fusions: BTreeSet<String>,
    /// LoRA's updates.
    pub lora: bool,
    /// The head that is used: the classifier, or AdapterHub's head.
    pub head: bool,
    /// The pooler.
    pub pooler: bool,
    /// Every LayerNorm of the base.
    pub layer_norm: bool,
    /// The base's three embedding tables.
    pub embeddings: bool,
    /// Biases of the base.
    pub bias: Bias,
}

/// Which biases of the base train: PEFT's `bias`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bias {
    /// None.
    None,
    /// All, those of LayerNorm among them.
    All,
    /// Those of the layers that LoRA is on.
    LoraOnly,
}

impl Trains {
    /// Nothing.
    pub fn nothing() -> Self {
        Self {
            base: false,
            adapters: BTreeSet::new(),
            bottlenecks: BTreeSet::new(),
            fusions: BTreeSet::new(),
            lora: false,
            head: false,
            pooler: false,
            layer_norm: false,
            embeddings: false,
            bias: Bias::None,
        }
    }

    /// Full fine-tuning.
    pub fn everything() -> Self {
        Self { base: true, head: true, ..Self::nothing() }
    }

    /// AdapterHub's `train_adapter`: these adapters and the head.
    pub fn adapters<S: Into<String>>(names: impl IntoIterator<Item = S>) -> Self {
        Self {
            adapters: names.into_iter().map(Into::into).collect(),
            head: true,
            ..Self::nothing()
        }
    }

    /// AdapterHub's `train_adapter_fusion`: this fusion and the head. The adapters are frozen.
    pub fn fusion(name: impl Into<String>) -> Self {
        Self { fusions: [name.into()].into(), head: true, ..Self::nothing() }
    }

    /// PEFT's LoRA for a classifier: the updates and the classifier.
    pub fn lora() -> Self {
        Self { lora: true, head: true, ..Self::nothing() }
    }

    /// Whether the parameter at a path of a model trains.
    pub(crate) fn includes(&self, path: &str, model: &PeftModel) -> bool {
        let mut parts = path.split('.');
        match (parts.next(), parts.next()) {
            (Some("base"), _) => self.includes_base(path, model),
            (Some("head"), _) => self.head,
            (Some("adapters"), Some("lora")) => self.lora,
            (Some("adapters"), Some("bottlenecks")) => {
                let index = parts.next().and_then(|index| index.parse::<usize>().ok());
                let name = index.map(|index| model.adapters.bottlenecks[index].name());
                let invertible = parts.next() == Some("invertible");
                name.is_some_and(|name| {
                    self.adapters.contains(name) || (!invertible && self.bottlenecks.contains(name))
                })
            }
            (Some("adapters"), Some("fusions")) => {
                let index = parts.next().and_then(|index| index.parse::<usize>().ok());
                index.is_some_and(|index| {
                    self.fusions.contains(model.adapters.fusions[index].name())
                })
            }
            _ => false,
        }
    }

    fn includes_base(&self, path: &str, model: &PeftModel) -> bool {
        let classifier = path.starts_with("base.classifier.");
        let pooler = path.starts_with("base.bert.pooler.");
        // AdapterHub's head stands in the place of both.
        if (classifier || pooler) && model.head.is_some() {
            return false;
        }
        let norm = path.contains(".layer_norm.");
        let bias = path.ends_with(".bias") || path.ends_with(".beta");
        self.base
            || (self.head && classifier)
            || (self.pooler && pooler)
            || (self.layer_norm && norm)
            || (self.embeddings && !norm && path.starts_with("base.bert.embeddings."))
            || (bias
                && match self.bias {
                    Bias::None => false,
                    Bias::All => true,
                    Bias::LoraOnly => path.strip_prefix("base.").is_some_and(|path| {
                        model.lora_layer_of(&nsmc_bert::torch_name(path)).is_some()
                    }),
                })
    }
}

impl PeftModel {
    /// A layer with LoRA whose own weight trains, too, by its name in transformers. PEFT makes none: what
    /// it trains whole it leaves out of the targets.
    pub fn lora_on_trained_layer(&self) -> Option<String> {
        let mut trained = self.trainable_paths().into_iter().filter_map(|path| {
            let name = nsmc_bert::torch_name(path.strip_prefix("base.")?);
            name.ends_with(".weight").then_some(name)
        });
        trained.find_map(|name| self.lora_layer_of(&name))
    }

    /// For the name in transformers of a parameter of a base layer that LoRA is on, the layer's name
    /// there.
    pub(crate) fn lora_layer_of(&self, name: &str) -> Option<String> {
        let lora = self.adapters.lora.as_ref()?;
        let linear = lora.linear.iter().map(|lora| LoraSite::Linear(lora.site()));
        let tables = lora.embeddings.iter().map(|lora| LoraSite::Embedding(lora.site()));
        let mut sites = linear.chain(tables).map(LoraSite::name);
        sites
            .find(|site| name.strip_prefix(site.as_str()).is_some_and(|rest| rest.starts_with('.')))
    }
}
