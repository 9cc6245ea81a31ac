use burn::module::{Module, ParamGroup};
use burn::tensor::{Int, Tensor};
use nsmc_bert::{BertConfig, BertForMaskedLm, BertForSequenceClassification, BertInput, Init};

use crate::adapters::{INIT_STD, ModelSize};
use crate::model::train_only;
use crate::parameters::paths;
use crate::{Adapters, BottleneckConfig, Composition, LoadOptions, PeftError, PeftModel};

/// A masked language model with a bottleneck adapter in it: how language adapters are trained
/// (MAD-X; Pfeiffer et al., 2020).
///
/// Before the decoder the invertible block of the adapter is undone, as AdapterHub's masked-LM head
/// does it: the decoder's weights are the embeddings, on which the block acts. (Put into transformers'
/// `BertForMaskedLM`, adapters 1.3 leaves that out.)
///
/// Deviation: the adapter alone trains. adapters 1.3 freezes the base model and the decoder
/// (`train_adapter`, `freeze_embeddings`), but not what lies between them: the head's transform, a linear
/// layer and a LayerNorm, trains there, and is no part of the adapter that is saved. Here the adapter is
/// trained with the transform that it will be used with.
#[derive(Module, Debug)]
pub struct AdaptedMaskedLm {
    /// The model.
    pub base: BertForMaskedLm,
    /// The adapter.
    pub adapters: Adapters,
    #[module(skip)]
    bert: BertConfig,
}

impl AdaptedMaskedLm {
    /// A frozen model with a new adapter, drawn from `seed`, that trains.
    pub fn new(
        base: BertForMaskedLm,
        config: &BertConfig,
        name: &str,
        adapter: &BottleneckConfig,
        seed: u64,
    ) -> Result<Self, PeftError> {
        let device = base.cls.predictions.bias.lazy_device();
        let size = ModelSize {
            hidden_size: config.hidden_size,
            num_hidden_layers: config.num_hidden_layers,
            attention_dropout: config.attention_probs_dropout_prob,
        };
        let mut adapters = Adapters::default();
        adapters.add_adapter(name, adapter, size, &Init::new(seed, INIT_STD, &device))?;
        adapters.set_active(Some(Composition::single(name)))?;
        let model = Self { base, adapters, bert: config.clone() };
        let added = paths(&model).into_iter().filter(|path| path.starts_with("adapters."));
        let added = ParamGroup::from_paths(added.collect::<Vec<_>>());
        Ok(train_only(model, added))
    }

    /// A model with the adapter of a folder or an archive, to compute with; nothing of it trains.
    pub fn load(
        base: BertForMaskedLm,
        config: &BertConfig,
        source: &std::path::Path,
    ) -> Result<Self, PeftError> {
        let mut adapters = PeftModel::new(Self::classifier(config, &base), config);
        let name = adapters.load_adapter(source, &LoadOptions::default())?;
        let mut adapters = adapters.adapters;
        adapters.set_active(Some(Composition::single(name)))?;
        Ok(Self { base, adapters, bert: config.clone() })
    }

    /// A classifier of the model's size, with whose methods adapters are read and written.
    fn classifier(config: &BertConfig, base: &BertForMaskedLm) -> BertForSequenceClassification {
        let device = base.cls.predictions.bias.lazy_device();
        BertForSequenceClassification::new(config, 0, &device)
    }

    /// The logits of the tokens at `rows`: `[rows.len(), vocab_size]`.
    pub fn forward(&self, input: &BertInput, rows: Tensor<1, Int>) -> Tensor<2> {
        let hidden_states = self.base.bert.forward_rows(input, rows, &self.adapters);
        let transformed = self.base.cls.predictions.transform.forward(hidden_states);
        self.base.decode(self.adapters.invert(transformed))
    }

    /// Writes the adapter into `folder`, in AdapterHub's layout.
    pub fn save_adapter(&self, folder: &std::path::Path) -> Result<(), PeftError> {
        let mut model = PeftModel::new(Self::classifier(&self.bert, &self.base), &self.bert);
        model.adapters = self.adapters.clone();
        let name = self.adapters.active().map_or("", Composition::first);
        model.save_adapter(name, folder)
    }
}
