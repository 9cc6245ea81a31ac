use std::collections::BTreeSet;

use burn::module::{Module, ModuleMapper, Param, ParamGroup};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use nsmc_bert::{
    BertConfig, BertForSequenceClassification, BertInput, EmbeddingSite, Hooks, Init, LinearSite,
    SublayerSite,
};
use nsmc_ops::LayerNorm;

use crate::adapters::{INIT_STD, ModelSize};
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
        self.adapters.add_adapter(name, config, size, &Init::new(seed, INIT_STD, &device))?;
        self.apply_trains();
        Ok(())
    }

    /// Adds a new fusion layer, drawn from `seed`, for the adapters of a `Fuse`, which must be there.
    /// Their order counts: `Fuse(a, b)` and `Fuse(b, a)` are two fusions.
    pub fn add_fusion(
        &mut self,
        composition: &Composition,
        config: FusionConfig,
        seed: u64,
    ) -> Result<(), PeftError> {
        let (size, device) = (self.size(), self.device());
        let init = Init::new(seed, INIT_STD, &device);
        self.adapters.add_fusion(composition, config, size, &init)?;
        self.apply_trains();
        Ok(())
    }

    /// Adds LoRA's updates, drawn from `seed`; the model must have none. At first they change no
    /// result.
    pub fn add_lora(&mut self, config: &LoraConfig, seed: u64) -> Result<(), PeftError> {
        if self.adapters.lora.is_some() {
            return Err(PeftError::LoraTaken);
        }
        let device = self.device();
        // Each of LoRA's matrices has a distribution of its own.
        let init = Init::new(seed, INIT_STD, &device);
        self.adapters.lora =
            Some(Lora::new(config, &mut self.base, &self.bert, &init.enter("lora"))?);
        self.apply_trains();
        Ok(())
    }

    /// Puts AdapterHub's two-layer head of this name, drawn from `seed`, in the place of pooler and
    /// classifier, or of the head of AdapterHub's that is there.
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
        self.apply_trains();
    }

    /// Takes AdapterHub's head away: the base's pooler and classifier are the head again.
    pub(crate) fn remove_head(&mut self) {
        self.head = None;
        self.head_name.clear();
        self.apply_trains();
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
            self.apply_trains();
        }
    }

    /// Makes a composition of adapters active, or none. Its adapters and fusions must be there, and
    /// each `Fuse` must be one that AdapterHub can compute in every layer.
    pub fn set_active(&mut self, composition: Option<Composition>) -> Result<(), PeftError> {
        self.adapters.set_active(composition)
    }

    /// Freezes everything but what `trains` says. What is added later is frozen, too, unless `trains`
    /// names it.
    #[must_use]
    pub fn train_only(mut self, trains: Trains) -> Self {
        self.trains = trains;
        let trainable = self.trainable();
        train_only(self, trainable)
    }

    /// Freezes everything but what [`Self::trains`] says, after a change of what is there.
    fn apply_trains(&mut self) {
        let trainable = self.trainable();
        *self = train_only(self.clone(), trainable);
    }

    /// What trains; of a new model every weight of the base and the head.
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

    /// A classifier of BERT alone with the results of this model: the base, with LoRA's updates added
    /// to its weights. AdapterHub's head and active adapters are errors.
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

#[cfg(test)]
mod tests {
    use burn::module::ModuleVisitor;
    use burn::tensor::Device;

    use super::*;

    /// The paths of the parameters that take a gradient.
    fn tracked(model: &PeftModel) -> Vec<String> {
        #[derive(Default)]
        struct Visitor {
            path: Vec<String>,
            tracked: Vec<String>,
        }
        impl ModuleVisitor for Visitor {
            fn enter_module(&mut self, name: &str, _: &str) {
                self.path.push(name.into());
            }
            fn exit_module(&mut self, _: &str, _: &str) {
                self.path.pop();
            }
            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                if param.val().is_require_grad() {
                    self.tracked.push(self.path.join("."));
                }
            }
        }
        let mut visitor = Visitor::default();
        model.visit(&mut visitor);
        visitor.tracked
    }

    #[test]
    fn what_is_added_after_train_only_is_frozen_unless_it_is_named() {
        let device = Device::flex().autodiff();
        let config: BertConfig = serde_json::from_str(
            r#"{"vocab_size": 19, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2,
                "intermediate_size": 16, "max_position_embeddings": 16}"#,
        )
        .unwrap();
        let fuse = Composition::fuse(["a", "b"]);
        let bottleneck = BottleneckConfig::pfeiffer(2.0).with_invertible();
        for trains in [
            Trains::nothing(),
            Trains::everything(),
            Trains::adapters(["b"]),
            Trains::fusion("a,b"),
            Trains::lora(),
        ] {
            let base = BertForSequenceClassification::new(&config, 3, &device);
            let mut model = PeftModel::new(base, &config).train_only(trains.clone());
            let check = |model: &PeftModel, added: &str| {
                assert_eq!(tracked(model), model.trainable_paths(), "{added}: {trains:?}");
                assert_eq!(*model.trains(), trains);
            };
            model.renew_head(5);
            check(&model, "a new classifier");
            for name in ["a", "b"] {
                model.add_adapter(name, &bottleneck, 5).unwrap();
                check(&model, name);
            }
            model.add_fusion(&fuse, FusionConfig::dynamic(), 5).unwrap();
            check(&model, "a fusion");
            model.add_lora(&LoraConfig::new(2, 4.0, &["query"]), 5).unwrap();
            check(&model, "LoRA");
            model.add_head("a", 5);
            check(&model, "a head");
            model.renew_head(6);
            check(&model, "a new head");
            model.remove_head();
            check(&model, "no head");
        }
    }
}
