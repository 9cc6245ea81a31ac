use std::path::Path;

use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::tensor::{DType, Device, Int, Tensor};
use nsmc_ops::{LayerNorm, multiply};

use crate::checkpoint::{Declared, load_state_dict, read_tensors, save_pretrained, weights_file};
use crate::{Activation, BertConfig, BertInput, BertModel, CheckpointError, Hooks, Init};

/// BERT with its masked-language-model head: transformers' `BertForMaskedLM`.
#[derive(Module, Debug)]
pub struct BertForMaskedLm {
    /// BERT without a pooler.
    pub bert: BertModel,
    /// The head, `cls` in a checkpoint.
    pub cls: BertLmHeads,
}

/// The pre-training heads of a checkpoint; of the two, masked language modelling is implemented.
#[derive(Module, Debug)]
pub struct BertLmHeads {
    /// Predicts masked tokens.
    pub predictions: BertLmPredictionHead,
}

/// `transform(hidden_states) · word_embeddingsᵀ + bias`: the decoder's weights are the word
/// embeddings.
#[derive(Module, Debug)]
pub struct BertLmPredictionHead {
    /// Before the decoder.
    pub transform: BertPredictionHeadTransform,
    /// One per token of the vocabulary.
    pub bias: Param<Tensor<1>>,
}

/// `LayerNorm(activation(dense(hidden_states)))`.
#[derive(Module, Debug)]
pub struct BertPredictionHeadTransform {
    /// Keeps the width.
    pub dense: Linear,
    /// Ends the transform.
    pub layer_norm: LayerNorm,
    #[module(skip)]
    activation: Activation,
}

impl BertForMaskedLm {
    /// A model with new weights.
    pub fn new(config: &BertConfig, seed: u64, device: &Device) -> Self {
        let init = Init::new(seed, config.initializer_range, device);
        let transform = init.enter("cls").enter("predictions").enter("transform");
        let vocab_size = config.vocab_size;
        Self {
            bert: BertModel::without_pooler(config, &init.enter("bert")),
            cls: BertLmHeads {
                predictions: BertLmPredictionHead {
                    transform: BertPredictionHeadTransform {
                        dense: transform.linear(
                            "dense",
                            config.hidden_size,
                            config.hidden_size,
                            true,
                        ),
                        layer_norm: transform.layer_norm(config.hidden_size, config.layer_norm_eps),
                        activation: config.hidden_act,
                    },
                    bias: init.param([vocab_size], move || vec![0.0; vocab_size]),
                },
            },
        }
    }

    /// The model of a folder in Hugging Face layout. Every tensor of BERT and of the head must
    /// be there; a pooler and heads for other tasks are left out. A model with a decoder of its
    /// own (`tie_word_embeddings` is not true) is refused.
    pub fn from_pretrained(
        folder: &Path,
        config: &BertConfig,
        device: &Device,
    ) -> Result<Self, CheckpointError> {
        let path = weights_file(folder)?;
        Declared::read(folder)?.check_tied(folder)?;
        let mut tensors = read_tensors(&path)?;
        // Copies of the word embeddings and of the bias that some versions of transformers wrote.
        let tied = ["cls.predictions.decoder.weight", "cls.predictions.decoder.bias"];
        tensors.retain(|name, _| {
            let bert = name.starts_with("bert.") && !name.starts_with("bert.pooler.");
            let head = name.starts_with("cls.predictions.") && !tied.contains(&name.as_str());
            bert || head
        });
        load_state_dict(Self::new(config, 0, device), tensors, &path, |_| false)
    }

    /// Writes `config.json` and `model.safetensors` into `folder`, as transformers does, with floats
    /// of `dtype`.
    pub fn save_pretrained(
        &self,
        folder: &Path,
        config: &BertConfig,
        dtype: DType,
    ) -> Result<(), CheckpointError> {
        save_pretrained(self, folder, config, "BertForMaskedLM", dtype)
    }

    /// The logits of the tokens at `rows`: `[rows.len(), vocab_size]`.
    pub fn forward(
        &self,
        input: &BertInput,
        rows: Tensor<1, Int>,
        hooks: &impl Hooks,
    ) -> Tensor<2> {
        self.predict(self.bert.forward_rows(input, rows, hooks))
    }

    /// The logits from hidden states.
    ///
    /// # Shapes
    /// - hidden_states: `[rows, hidden_size]`
    /// - output: `[rows, vocab_size]`
    pub fn predict(&self, hidden_states: Tensor<2>) -> Tensor<2> {
        self.decode(self.cls.predictions.transform.forward(hidden_states))
    }

    /// The logits from transformed hidden states: `transformed · word_embeddingsᵀ + bias`.
    ///
    /// # Shapes
    /// - transformed: `[rows, hidden_size]`
    /// - output: `[rows, vocab_size]`
    pub fn decode(&self, transformed: Tensor<2>) -> Tensor<2> {
        let decoder = self.bert.embeddings.word_embeddings.weight.val().transpose();
        multiply(transformed, decoder) + self.cls.predictions.bias.val().unsqueeze()
    }
}

impl BertPredictionHeadTransform {
    /// The transformed hidden states, of which [`BertForMaskedLm::decode`] makes logits.
    ///
    /// # Shapes
    /// - hidden_states: `[rows, hidden_size]`
    /// - output: the same
    pub fn forward(&self, hidden_states: Tensor<2>) -> Tensor<2> {
        self.layer_norm.forward(self.activation.forward(self.dense.forward(hidden_states)))
    }
}
