use std::collections::BTreeSet;

use burn::module::{Module, ModuleMapper, Param, ParamGroup};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use nsmc_bert::{
    BertConfig, BertForSequenceClassification, BertInput, EmbeddingSite, Hooks, Init, LinearSite,
    SublayerSite,
};
use nsmc_ops::LayerNorm;

use crate::adapters::ModelSize;
use crate::parameters::paths;
use crate::{
    Adapters, BottleneckConfig, ClassificationHead, Composition, FusionConfig, Lora, LoraConfig,
    ParameterCounts, PeftError, Trains,
};

/// A BERT classifier under a fine-tuning method.
#[derive(Module, Debug)]
pub struct PeftModel {
    /// The classifier itself.
    pub base: BertForSequenceClassification,
    /// AdapterHub's head; it takes the place of the base's pooler and classifier.
    pub head: Option<ClassificationHead>,
    /// What is added.
    pub adapters: Adapters,
    #[module(skip)]
    pub(crate) bert: BertConfig,
    #[module(skip)]
    pub(crate) head_name: String,
    #[module(skip)]
    trains: Trains,
    /// Paths of weights of the base beneath its classifier that are not the base's any more: a file
    /// brought others.
    #[module(skip)]
    pub(crate) replaced: BTreeSet<String>,
}

/// The weights with which a fusion attended to its adapters, in one place of one layer.
#[derive(Clone, Debug)]
pub struct FusionWeights {
    /// The fusion's name.
    pub fusion: String,
    /// Where.
    pub site: SublayerSite,
    /// `[rows, adapters]`
    pub weights: Tensor<2>,
}

impl PeftModel {
    /// A classifier without additions; every weight trains.
    pub fn new(base: BertForSequenceClassification, config: &BertConfig) -> Self {
        Self {
            base,
            head: None,
            adapters: Adapters::default(),
            bert: config.clone(),
            head_name: String::new(),
            trains: Trains::everything(),
            replaced: BTreeSet::new(),
        }
    }

    /// The configuration of the base.
    pub fn config(&self) -> &BertConfig {
        &self.bert
    }

    /// Adds a new bottleneck adapter, drawn from `seed`.
    pub fn add_adapter(
        &mut self,
        name: &str,
        config: &BottleneckConfig,
        seed: u64,
    ) -> Result<(), PeftError> {
        let (size, device) = (self.size(), self.device());
        self.adapters.add_adapter(name, config, size, &Init::new(seed, 0.02, &device))
    }

    /// Adds a new fusion layer for a `Fuse` of adapters that are there, in that order.
    pub fn add_fusion(
        &mut self,
        composition: &Composition,
        config: FusionConfig,
        seed: u64,
    ) -> Result<(), PeftError> {
        let (size, device) = (self.size(), self.device());
        self.adapters.add_fusion(composition, config, size, &Init::new(seed, 0.02, &device))
    }

    /// Adds LoRA's updates.
    pub fn add_lora(&mut self, config: &LoraConfig, seed: u64) -> Result<(), PeftError> {
        if self.adapters.lora.is_some() {
            return Err(PeftError::LoraTaken);
        }
        let device = self.device();
        let init = Init::new(seed, 0.02, &device);
        self.adapters.lora =
            Some(Lora::new(config, &mut self.base, &self.bert, &init.enter("lora"))?);
        Ok(())
    }

    /// Puts AdapterHub's two-layer head in the place of pooler and classifier.
    pub fn add_head(&mut self, name: &str, seed: u64) {
        self.put_head(name, None, seed);
    }

    /// [`Self::add_head`] with a dropout of the head's own, which must have been checked.
    pub(crate) fn put_head(&mut self, name: &str, dropout_prob: Option<f64>, seed: u64) {
        let device = self.device();
        let init = Init::new(seed, self.bert.initializer_range, &device);
        let init = init.enter("heads").enter(name);
        self.head = Some(ClassificationHead::new(&self.bert, dropout_prob, &init));
        self.head_name = name.into();
    }

    /// Gives the head that is used new weights, drawn from `seed` as those of a new model are.
    pub fn renew_head(&mut self, seed: u64) {
        if let Some(head) = &self.head {
            let (name, dropout_prob) = (self.head_name.clone(), head.dropout_prob());
            self.put_head(&name, dropout_prob, seed);
        } else {
            let device = self.device();
            let init = Init::new(seed, self.bert.initializer_range, &device);
            let (width, classes) = (self.bert.hidden_size, self.bert.num_labels());
            self.base.classifier = init.linear("classifier", width, classes, true);
        }
    }

    /// Makes a composition of adapters active.
    pub fn set_active(&mut self, composition: Option<Composition>) -> Result<(), PeftError> {
        self.adapters.set_active(composition)
    }

    /// Freezes everything but what `trains` says.
    #[must_use]
    pub fn train_only(mut self, trains: Trains) -> Self {
        self.trains = trains;
        let trainable = self.trainable();
        train_only(self, trainable)
    }

    /// What trains.
    pub fn trains(&self) -> &Trains {
        &self.trains
    }

    /// The parameters that train.
    pub fn trainable(&self) -> ParamGroup {
        ParamGroup::from_paths(self.trainable_paths())
    }

    /// The paths in this module of the parameters that train.
    pub fn trainable_paths(&self) -> Vec<String> {
        paths(self).into_iter().filter(|path| self.trains.includes(path, self)).collect()
    }

    /// Whether weights of the base beneath its classifier (embeddings, encoder, pooler) are not those of
    /// the folder that the base came from: they train, came with a file, or, as the pooler of a masked
    /// language model, are not in that folder and were drawn from the seed. AdapterHub's own head reads
    /// no pooler.
    pub fn changes_base(&self) -> bool {
        let trained = self.trainable_paths();
        let drew_pooler = self.base.drew_pooler() && self.head.is_none();
        drew_pooler
            || !self.replaced.is_empty()
            || trained.iter().any(|path| path.starts_with("base.bert."))
    }

    /// How many parameters train, and how many there are.
    pub fn parameter_counts(&self) -> ParameterCounts {
        ParameterCounts::of(self, &self.trainable())
    }

    /// The logits: `[batch_size, num_labels]`.
    pub fn forward(&self, input: &BertInput) -> Tensor<2> {
        self.classify(self.base.bert.forward_first(input, &self.adapters))
    }

    /// The embedding output and each layer's hidden states, `[rows, hidden_size]` each.
    pub fn hidden_states(&self, input: &BertInput) -> Vec<Tensor<2>> {
        self.base.bert.hidden_states(input, &self.adapters)
    }

    /// The logits, and the weights of every fusion for every row, from the first layer up.
    pub fn forward_with_fusion_weights(
        &self,
        input: &BertInput,
    ) -> (Tensor<2>, Vec<FusionWeights>) {
        let observed =
            Observed { adapters: &self.adapters, weights: std::cell::RefCell::default() };
        let hidden_states = self.base.bert.forward(input, &observed);
        let logits = self.classify(hidden_states.select(0, input.sequences.first_rows()));
        (logits, observed.weights.into_inner())
    }

    fn classify(&self, first_tokens: Tensor<2>) -> Tensor<2> {
        match &self.head {
            Some(head) => head.forward(first_tokens),
            None => self.base.classify(first_tokens, &self.adapters),
        }
    }

    /// Adds the gradient of AdapterFusion's regulariser, `0.02 · (V - I)`, to the value matrices
    /// that train and are regularised.
    #[must_use]
    pub fn add_regularizer_gradients(&self, mut gradients: GradientsParams) -> GradientsParams {
        let trained = |fusion: &&crate::Fusion| self.trains.fusions.contains(fusion.name());
        for fusion in self.adapters.fusions.iter().filter(trained) {
            for (param, regularizer) in
                fusion.modules().filter_map(crate::AdapterFusion::regularizer_gradient)
            {
                let gradient = match gradients.remove::<2>(param.id) {
                    Some(gradient) => gradient + regularizer,
                    None => regularizer,
                };
                gradients.register(param.id, gradient);
            }
        }
        gradients
    }

    /// The base with LoRA's updates in its weights: it gives the same without them.
    pub fn merged(&self) -> Result<BertForSequenceClassification, PeftError> {
        if self.head.is_some() {
            return Err(PeftError::Unmergeable(
                "the head is AdapterHub's, and a BERT for classification has its own",
            ));
        }
        match (&self.adapters.lora, self.adapters.active()) {
            (_, Some(_)) => {
                let why = "bottleneck adapters are active, which are no update of its weights";
                Err(PeftError::Unmergeable(why))
            }
            (Some(lora), None) => Ok(lora.merge(self.base.clone())),
            (None, None) => Ok(self.base.clone()),
        }
    }

    fn size(&self) -> ModelSize {
        ModelSize {
            hidden_size: self.bert.hidden_size,
            num_hidden_layers: self.bert.num_hidden_layers,
            attention_dropout: self.bert.attention_probs_dropout_prob,
        }
    }

    fn device(&self) -> burn::tensor::Device {
        self.base.classifier.weight.lazy_device()
    }
}

/// Hooks that remember the fusions' weights.
struct Observed<'a> {
    adapters: &'a Adapters,
    weights: std::cell::RefCell<Vec<FusionWeights>>,
}

impl Hooks for Observed<'_> {
    fn linear(&self, site: LinearSite, linear: &burn::nn::Linear, input: Tensor<2>) -> Tensor<2> {
        self.adapters.linear(site, linear, input)
    }

    fn embedding(
        &self,
        site: EmbeddingSite,
        embedding: &burn::nn::Embedding,
        ids: Tensor<1, burn::tensor::Int>,
        padding: Option<usize>,
    ) -> Tensor<2> {
        self.adapters.embedding(site, embedding, ids, padding)
    }

    fn embedding_output(&self, hidden_states: Tensor<2>) -> Tensor<2> {
        self.adapters.embedding_output(hidden_states)
    }

    fn sublayer_output(
        &self,
        site: SublayerSite,
        hidden_states: Tensor<2>,
        residual: Tensor<2>,
        layer_norm: &LayerNorm,
    ) -> Tensor<2> {
        let mut observe = |fusion: &str, weights: Tensor<2>| {
            let fusion = fusion.to_owned();
            self.weights.borrow_mut().push(FusionWeights { fusion, site, weights });
        };
        self.adapters.sublayer_output(site, hidden_states, residual, layer_norm, &mut observe)
    }
}

/// Freezes all of a module's parameters but these, and none of its clones'.
pub(crate) fn train_only<M: Module>(module: M, trainable: ParamGroup) -> M {
    module
        .map(&mut OwnParameters)
        .set_require_grad_group(ParamGroup::all(), false)
        .set_require_grad_group(trainable, true)
}

/// Parts a model from its clones: until a parameter is first used, burn's clones of it share
/// whether it trains.
struct OwnParameters;

impl ModuleMapper for OwnParameters {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.init_mapper(|value| value)
    }
}
