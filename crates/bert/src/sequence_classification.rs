use std::path::Path;

use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig, Linear};
use burn::tensor::{DType, Device, Tensor};
use nsmc_ops::dropout;

use crate::checkpoint::{Declared, load_state_dict, read_tensors, save_pretrained, weights_file};
use crate::{BertConfig, BertInput, BertModel, CheckpointError, Hooks, Init, LinearSite};

/// How the names of the pooler's and of the classifier's tensors begin.
const POOLER: &str = "bert.pooler.";
const CLASSIFIER: &str = "classifier.";

/// BERT with a classifier on the pooled first token: transformers' class of the same name.
#[derive(Module, Debug)]
pub struct BertForSequenceClassification {
    /// BERT with its pooler.
    pub bert: BertModel,
    dropout: Dropout,
    /// Pooled state to logits.
    pub classifier: Linear,
    #[module(skip)]
    drew_pooler: bool,
}

impl BertForSequenceClassification {
    /// A model with new weights; `config` gives the classes.
    pub fn new(config: &BertConfig, seed: u64, device: &Device) -> Self {
        let init = Init::new(seed, config.initializer_range, device);
        let dropout = config.classifier_dropout.unwrap_or(config.hidden_dropout_prob);
        Self {
            bert: BertModel::new(config, &init.enter("bert")),
            dropout: DropoutConfig::new(dropout).init(),
            classifier: init.linear("classifier", config.hidden_size, config.num_labels(), true),
            drew_pooler: false,
        }
    }

    /// Whether the pooler is none of the folder that [`Self::from_pretrained`] read, which had none,
    /// but new: whoever loads that folder again has another one, unless the seed is the same.
    pub fn drew_pooler(&self) -> bool {
        self.drew_pooler
    }

    /// The model of a folder in Hugging Face layout (`model.safetensors` or `pytorch_model.bin`)
    /// with the classes of `config`. The folder may hold any BERT: heads for other tasks are left
    /// out, a classifier of tokens or of choices by the `architectures` of its `config.json` among
    /// them. A classifier or a pooler of which nothing is there is new, drawn from `seed`, and the log
    /// says so.
    ///
    /// Deviation: transformers takes the classifier of tokens or of choices, whose names are these,
    /// for its own where the shapes agree; here it is left out. And with a classifier that
    /// `problem_type` says is of several labels at once or of a regression, transformers goes on with
    /// the loss of that problem; here it is an error.
    pub fn from_pretrained(
        folder: &Path,
        config: &BertConfig,
        seed: u64,
        device: &Device,
    ) -> Result<Self, CheckpointError> {
        Self::load(folder, config, seed, device, &[POOLER, CLASSIFIER])
    }

    /// The model of a folder that holds it whole, such as [`Self::save_pretrained`] writes: what is
    /// missing is an error.
    pub fn from_checkpoint(
        folder: &Path,
        config: &BertConfig,
        device: &Device,
    ) -> Result<Self, CheckpointError> {
        Self::load(folder, config, 0, device, &[])
    }

    /// `optional` modules are new where nothing of them is there.
    fn load(
        folder: &Path,
        config: &BertConfig,
        seed: u64,
        device: &Device,
        optional: &[&str],
    ) -> Result<Self, CheckpointError> {
        let path = weights_file(folder)?;
        let mut tensors = read_tensors(&path)?;
        let declared = Declared::read(folder)?;
        let other_classifier = declared.has_other_classifier();
        tensors.retain(|name, _| {
            name.starts_with("bert.") || (name.starts_with(CLASSIFIER) && !other_classifier)
        });
        let mut new = optional.to_vec();
        new.retain(|module| !tensors.keys().any(|name| name.starts_with(module)));
        if !new.contains(&CLASSIFIER) {
            declared.check_problem(folder)?;
        }
        if optional.contains(&CLASSIFIER) && !new.contains(&CLASSIFIER) {
            declared.check_class_order(folder, config)?;
            tracing::info!(weights = %path.display(), "the classifier is the model's own");
        }
        let mut model = load_state_dict(Self::new(config, seed, device), tensors, &path, |name| {
            new.iter().any(|module| name.starts_with(module))
        })?;
        model.drew_pooler = new.contains(&POOLER);
        for module in new {
            let module = module.trim_end_matches('.');
            tracing::info!(weights = %path.display(), module, seed, "not there: its weights are new");
        }
        Ok(model)
    }

    /// Writes `config.json` and `model.safetensors` into `folder`, as transformers does.
    pub fn save_pretrained(
        &self,
        folder: &Path,
        config: &BertConfig,
    ) -> Result<(), CheckpointError> {
        save_pretrained(self, folder, config, "BertForSequenceClassification", DType::F32)
    }

    /// The logits: `[batch_size, num_labels]`.
    pub fn forward(&self, input: &BertInput, hooks: &impl Hooks) -> Tensor<2> {
        let first_tokens = self.bert.forward_first(input, hooks);
        self.classify(first_tokens, hooks)
    }

    /// The logits from each sequence's first token.
    ///
    /// # Shapes
    /// - first_tokens: `[batch_size, hidden_size]`
    /// - output: `[batch_size, num_labels]`
    ///
    /// # Panics
    ///
    /// If the model has no pooler.
    pub fn classify(&self, first_tokens: Tensor<2>, hooks: &impl Hooks) -> Tensor<2> {
        let pooler = self.bert.pooler.as_ref().expect("a sequence classifier has a pooler");
        let pooled = dropout(&self.dropout, pooler.forward(first_tokens, hooks));
        hooks.linear(LinearSite::Classifier, &self.classifier, pooled)
    }
}
