use burn::nn::{Embedding, Linear};
use burn::tensor::{Int, Tensor};
use nsmc_ops::{LayerNorm, gather};

/// Where a fine-tuning method changes BERT's forward pass.
///
/// Every method has plain BERT as its default, so that an implementation states only what it
/// changes. Hidden states are rows, `[rows, hidden_size]`.
pub trait Hooks {
    /// A linear layer: `x · W + b`.
    ///
    /// # Shapes
    /// - input: `[rows, in]`
    /// - output: `[rows, out]`
    fn linear(&self, site: LinearSite, linear: &Linear, input: Tensor<2>) -> Tensor<2> {
        let _ = site;
        nsmc_ops::linear(linear, input)
    }

    /// An embedding table: [`gather`] of its weights. The row of `padding` is used, but takes no
    /// gradient: PyTorch's `padding_idx`.
    ///
    /// # Shapes
    /// - ids: `[rows]`
    /// - output: `[rows, hidden_size]`
    fn embedding(
        &self,
        site: EmbeddingSite,
        embedding: &Embedding,
        ids: Tensor<1, Int>,
        padding: Option<usize>,
    ) -> Tensor<2> {
        let _ = site;
        gather(embedding.weight.val(), ids, padding)
    }

    /// The embedding output after LayerNorm and dropout, where an invertible adapter acts.
    fn embedding_output(&self, hidden_states: Tensor<2>) -> Tensor<2> {
        hidden_states
    }

    /// The end of a sub-layer: `LayerNorm(hidden_states + residual)`, where `hidden_states` is the
    /// sub-layer's dense output after dropout and `residual` its input.
    fn sublayer_output(
        &self,
        site: SublayerSite,
        hidden_states: Tensor<2>,
        residual: Tensor<2>,
        layer_norm: &LayerNorm,
    ) -> Tensor<2> {
        let _ = site;
        layer_norm.forward_sum(hidden_states, residual)
    }
}

/// Plain BERT.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoHooks;

impl Hooks for NoHooks {}

/// A linear layer of BERT; the number is the encoder layer's, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LinearSite {
    /// `attention.self.query`
    Query(usize),
    /// `attention.self.key`
    Key(usize),
    /// `attention.self.value`
    Value(usize),
    /// `attention.output.dense`
    AttentionOutput(usize),
    /// `intermediate.dense`
    Intermediate(usize),
    /// `output.dense`
    Output(usize),
    /// `bert.pooler.dense`
    Pooler,
    /// `classifier`
    Classifier,
}

impl LinearSite {
    /// Every linear layer of a classifier with `num_hidden_layers` layers, in transformers' order.
    pub fn all(num_hidden_layers: usize) -> impl Iterator<Item = Self> {
        (0..num_hidden_layers)
            .flat_map(|layer| {
                [
                    Self::Query(layer),
                    Self::Key(layer),
                    Self::Value(layer),
                    Self::AttentionOutput(layer),
                    Self::Intermediate(layer),
                    Self::Output(layer),
                ]
            })
            .chain([Self::Pooler, Self::Classifier])
    }

    /// The module's name in transformers' `BertForSequenceClassification`.
    pub fn name(self) -> String {
        match self {
            Self::Query(layer) => format!("bert.encoder.layer.{layer}.attention.self.query"),
            Self::Key(layer) => format!("bert.encoder.layer.{layer}.attention.self.key"),
            Self::Value(layer) => format!("bert.encoder.layer.{layer}.attention.self.value"),
            Self::AttentionOutput(layer) => {
                format!("bert.encoder.layer.{layer}.attention.output.dense")
            }
            Self::Intermediate(layer) => format!("bert.encoder.layer.{layer}.intermediate.dense"),
            Self::Output(layer) => format!("bert.encoder.layer.{layer}.output.dense"),
            Self::Pooler => "bert.pooler.dense".into(),
            Self::Classifier => "classifier".into(),
        }
    }
}

/// An embedding table of BERT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EmbeddingSite {
    /// `bert.embeddings.word_embeddings`
    Word,
    /// `bert.embeddings.position_embeddings`
    Position,
    /// `bert.embeddings.token_type_embeddings`
    TokenType,
}

impl EmbeddingSite {
    /// All three tables.
    pub const ALL: [Self; 3] = [Self::Word, Self::Position, Self::TokenType];

    /// The module's name in transformers' `BertForSequenceClassification`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Word => "bert.embeddings.word_embeddings",
            Self::Position => "bert.embeddings.position_embeddings",
            Self::TokenType => "bert.embeddings.token_type_embeddings",
        }
    }
}

/// The end of a sub-layer; the number is the encoder layer's, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SublayerSite {
    /// After attention: `attention.output`.
    Attention(usize),
    /// After the feed-forward layer: `output`.
    FeedForward(usize),
}
