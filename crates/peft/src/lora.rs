use std::collections::BTreeMap;

use burn::module::{Module, Param};
use burn::nn::{Dropout, DropoutConfig, Embedding, Linear};
use burn::tensor::{Int, Tensor};
use nsmc_bert::{
    BertConfig, BertForSequenceClassification, EmbeddingSite, Init, LinearSite, embed,
};

use serde::{Deserialize, Serialize};

use crate::lora_targets::{pattern_value, target_sites};
use crate::{LoraSite, PeftError, TargetModules};

/// LoRA's hyper-parameters. The names are PEFT's, but `r` is `rank` and `lora_alpha` is `alpha`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoraConfig {
    /// Rank of the update.
    pub rank: usize,
    /// The update is scaled by `alpha / rank`.
    pub alpha: f64,
    /// Dropout of the update's input.
    pub dropout: f64,
    /// Which layers.
    pub target_modules: TargetModules,
    /// Which layers not.
    pub exclude_modules: Option<TargetModules>,
    /// Of a list of targets, those in these encoder layers.
    pub layers_to_transform: Option<Vec<usize>>,
    /// Ranks of single layers, by a regular expression for the end of their names.
    pub rank_pattern: BTreeMap<String, usize>,
    /// Alphas of single layers, likewise.
    pub alpha_pattern: BTreeMap<String, f64>,
    /// Scale by `alpha / √rank` instead (Kalajdzievski, 2023).
    pub use_rslora: bool,
    /// Learn the magnitude of each output apart from its direction (DoRA; Liu et al., 2024).
    pub use_dora: bool,
}

impl LoraConfig {
    /// PEFT's defaults on these layers.
    pub fn new(rank: usize, alpha: f64, targets: &[&str]) -> Self {
        Self {
            rank,
            alpha,
            dropout: 0.0,
            target_modules: TargetModules::List(targets.iter().map(|&t| t.to_owned()).collect()),
            exclude_modules: None,
            layers_to_transform: None,
            rank_pattern: BTreeMap::new(),
            alpha_pattern: BTreeMap::new(),
            use_rslora: false,
            use_dora: false,
        }
    }

    /// The layers that are targeted, each with its rank and its update's scale.
    pub fn layers(&self, num_hidden_layers: usize) -> Result<Vec<LoraLayer>, PeftError> {
        let sites = target_sites(
            &self.target_modules,
            self.exclude_modules.as_ref(),
            self.layers_to_transform.as_deref(),
            num_hidden_layers,
        )?;
        let value = |key, message| Err(PeftError::Value { key, message });
        if !(0.0..1.0).contains(&self.dropout) {
            return value(
                "dropout",
                format!("expected a number from 0 below 1, found {}", self.dropout),
            );
        }
        let mut layers = Vec::new();
        for site in sites {
            let name = site.name();
            let rank = pattern_value(&self.rank_pattern, &name)?.unwrap_or(self.rank);
            let alpha = pattern_value(&self.alpha_pattern, &name)?.unwrap_or(self.alpha);
            if rank == 0 {
                return value("rank", format!("expected a rank from 1 for {name}, found 0"));
            }
            if !alpha.is_finite() {
                return value(
                    "alpha",
                    format!("expected a finite number for {name}, found {alpha}"),
                );
            }
            if self.use_dora && matches!(site, LoraSite::Embedding(_)) {
                return value(
                    "use_dora",
                    format!("DoRA of an embedding ({name}) is not implemented"),
                );
            }
            let divisor = if self.use_rslora { (rank as f64).sqrt() } else { rank as f64 };
            layers.push(LoraLayer { site, rank, scaling: alpha / divisor });
        }
        Ok(layers)
    }
}

/// A targeted layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LoraLayer {
    /// Which.
    pub site: LoraSite,
    /// Rank of its update.
    pub rank: usize,
    /// Scale of its update.
    pub scaling: f64,
}

/// LoRA (Hu et al., 2022): a trainable update of low rank beside frozen weights, computed as
/// `x · W + (x · A) · B · scaling`, never by forming `A · B`.
#[derive(Module, Debug)]
pub struct Lora {
    /// The linear layers' updates.
    pub linear: Vec<LoraLinear>,
    /// The embedding tables' updates.
    pub embeddings: Vec<LoraEmbedding>,
    #[module(skip)]
    config: LoraConfig,
}

/// The update of one linear layer.
#[derive(Module, Debug)]
pub struct LoraLinear {
    /// `[in, rank]`
    pub lora_a: Linear,
    /// `[rank, out]`
    pub lora_b: Linear,
    /// DoRA's magnitude of each output: `[out]`.
    pub lora_magnitude_vector: Option<Param<Tensor<1>>>,
    dropout: Dropout,
    scaling: f64,
    #[module(skip)]
    site: LinearSite,
}

/// The update of one embedding table.
#[derive(Module, Debug)]
pub struct LoraEmbedding {
    /// `[entries, rank]`
    pub lora_embedding_a: Embedding,
    /// `[rank, hidden_size]`
    pub lora_embedding_b: Linear,
    scaling: f64,
    #[module(skip)]
    site: EmbeddingSite,
}

impl Lora {
    /// New updates for the targeted layers of `base`; at first they change nothing.
    ///
    /// A linear layer's `A` is drawn evenly from `±1/√in` (PyTorch's `kaiming_uniform_(a=√5)`) and
    /// its `B` is 0; an embedding's `A` is 0 and its `B` is drawn from `N(0, 1)`. DoRA's magnitudes
    /// are those of the base weights.
    pub(crate) fn new(
        config: &LoraConfig,
        base: &BertForSequenceClassification,
        bert: &BertConfig,
        init: &Init<'_>,
    ) -> Result<Self, PeftError> {
        let mut lora = Self { linear: Vec::new(), embeddings: Vec::new(), config: config.clone() };
        for LoraLayer { site, rank, scaling } in config.layers(bert.num_hidden_layers)? {
            let init = init.enter(site.name());
            match site {
                LoraSite::Linear(site) => {
                    let layer = linear_layer(base, site)?;
                    let [d_input, d_output] = layer.weight.lazy_shape().dims();
                    let mut lora_a = init.linear("lora_A", d_input, rank, false);
                    let bound = 1.0 / (d_input as f64).sqrt();
                    lora_a.weight = init.enter("lora_A").uniform([d_input, rank], bound);
                    lora.linear.push(LoraLinear {
                        lora_a,
                        lora_b: zero_linear(rank, d_output, &init),
                        lora_magnitude_vector: config.use_dora.then(|| magnitude(layer)),
                        dropout: DropoutConfig::new(config.dropout).init(),
                        scaling,
                        site,
                    });
                }
                LoraSite::Embedding(site) => {
                    let [entries, width] = embedding_table(base, site).weight.lazy_shape().dims();
                    let mut lora_embedding_a =
                        init.embedding("lora_embedding_A", entries, rank, None);
                    lora_embedding_a.weight =
                        init.param([entries, rank], move || vec![0.0; entries * rank]);
                    let unit = init.with_std(1.0);
                    lora.embeddings.push(LoraEmbedding {
                        lora_embedding_a,
                        lora_embedding_b: unit.linear("lora_embedding_B", rank, width, false),
                        scaling,
                        site,
                    });
                }
            }
        }
        Ok(lora)
    }

    /// The hyper-parameters.
    pub fn config(&self) -> &LoraConfig {
        &self.config
    }

    pub(crate) fn at(&self, site: LinearSite) -> Option<&LoraLinear> {
        self.linear.iter().find(|lora| lora.site == site)
    }

    pub(crate) fn embedding_at(&self, site: EmbeddingSite) -> Option<&LoraEmbedding> {
        self.embeddings.iter().find(|lora| lora.site == site)
    }

    /// Adds the updates to the weights of `base`, which then gives the same without LoRA.
    pub fn merge(&self, base: BertForSequenceClassification) -> BertForSequenceClassification {
        self.fold(base, |lora, weight| match &lora.lora_magnitude_vector {
            Some(magnitude) => {
                let directed = weight.clone() + lora.delta();
                let norm = column_norm(directed.clone());
                directed * (magnitude.val().inner().unsqueeze::<2>() / norm)
            }
            None => weight + lora.delta(),
        })
    }

    /// Takes the updates off merged weights. DoRA cannot be taken off: the norm it divided by is
    /// gone.
    pub fn unmerge(
        &self,
        base: BertForSequenceClassification,
    ) -> Result<BertForSequenceClassification, PeftError> {
        if self.config.use_dora {
            return Err(PeftError::Value {
                key: "use_dora",
                message: "merged DoRA weights cannot be unmerged; load the base again".into(),
            });
        }
        let negated = |lora: &LoraLinear, weight| weight - lora.delta();
        let mut base = self.fold_linear(base, negated);
        for lora in &self.embeddings {
            let table = embedding_table_mut(&mut base, lora.site);
            replace(&mut table.weight, |weight| weight - lora.delta());
        }
        Ok(base)
    }

    fn fold(
        &self,
        base: BertForSequenceClassification,
        update: impl Fn(&LoraLinear, Tensor<2>) -> Tensor<2>,
    ) -> BertForSequenceClassification {
        let mut base = self.fold_linear(base, update);
        for lora in &self.embeddings {
            let table = embedding_table_mut(&mut base, lora.site);
            replace(&mut table.weight, |weight| weight + lora.delta());
        }
        base
    }

    fn fold_linear(
        &self,
        mut base: BertForSequenceClassification,
        update: impl Fn(&LoraLinear, Tensor<2>) -> Tensor<2>,
    ) -> BertForSequenceClassification {
        for lora in &self.linear {
            if let Some(layer) = linear_layer_mut(&mut base, lora.site) {
                replace(&mut layer.weight, |weight| update(lora, weight));
            }
        }
        base
    }
}

impl LoraLinear {
    /// Where the update is.
    pub fn site(&self) -> LinearSite {
        self.site
    }

    /// `x · W + b + dropout(x) · A · B · scaling`, or its DoRA form: with `V = W + A · B · scaling`
    /// and its norms by column, which take no gradient, `(m / ‖V‖) · (x · V) + b`.
    pub(crate) fn forward(&self, linear: &Linear, input: &Tensor<2>) -> Tensor<2> {
        let base = linear.forward(input.clone());
        let dropped = self.dropout.forward(input.clone());
        let update = self.lora_b.forward(self.lora_a.forward(dropped.clone())) * self.scaling;
        let Some(magnitude) = &self.lora_magnitude_vector else { return base + update };

        let weight = linear.weight.val();
        let norm = column_norm(weight.clone().detach() + self.dense().detach());
        let scale = magnitude.val().unsqueeze::<2>() / norm;
        // With dropout at work, PEFT drops the base's share of the change of scale, too.
        let unbiased = match (self.drops(input), &linear.bias) {
            (true, _) => dropped.matmul(weight),
            (false, Some(bias)) => base.clone() - bias.val().unsqueeze::<2>(),
            (false, None) => base.clone(),
        };
        base + unbiased * (scale.clone() - 1.0) + update * scale
    }

    fn drops(&self, input: &Tensor<2>) -> bool {
        self.dropout.prob > 0.0
            && self.dropout.training.is_enabled()
            && input.device().is_autodiff()
    }

    fn dense(&self) -> Tensor<2> {
        self.lora_a.weight.val().matmul(self.lora_b.weight.val()) * self.scaling
    }

    /// `A · B · scaling`, off the tape.
    fn delta(&self) -> Tensor<2> {
        self.lora_a
            .weight
            .val()
            .without_autodiff()
            .matmul(self.lora_b.weight.val().without_autodiff())
            * self.scaling
    }
}

impl LoraEmbedding {
    /// Where the update is.
    pub fn site(&self) -> EmbeddingSite {
        self.site
    }

    /// `W[ids] + A[ids] · B · scaling`.
    pub(crate) fn forward(
        &self,
        embedding: &Embedding,
        ids: Tensor<1, Int>,
        padding: Option<usize>,
    ) -> Tensor<2> {
        let base = embed(embedding.weight.val(), ids.clone(), padding);
        let low = embed(self.lora_embedding_a.weight.val(), ids, padding);
        base + self.lora_embedding_b.forward(low) * self.scaling
    }

    fn delta(&self) -> Tensor<2> {
        let (a, b) = (&self.lora_embedding_a.weight, &self.lora_embedding_b.weight);
        a.val().without_autodiff().matmul(b.val().without_autodiff()) * self.scaling
    }
}

/// The Euclidean norm of each column: `[1, columns]`.
fn column_norm(matrix: Tensor<2>) -> Tensor<2> {
    matrix.square().sum_dim(0).sqrt()
}

fn magnitude(layer: &Linear) -> Param<Tensor<1>> {
    let weight = layer.weight.val();
    let device = weight.device();
    let norms = column_norm(weight.without_autodiff()).flatten::<1>(0, 1).into_data();
    Param::from_data(norms, &device)
}

fn zero_linear(d_input: usize, d_output: usize, init: &Init<'_>) -> Linear {
    let mut linear = init.linear("lora_B", d_input, d_output, false);
    linear.weight = init.param([d_input, d_output], move || vec![0.0; d_input * d_output]);
    linear
}

/// Replaces a parameter's value and keeps its identity and whether it trains.
fn replace(param: &mut Param<Tensor<2>>, with: impl FnOnce(Tensor<2>) -> Tensor<2>) {
    *param = param.clone().map(|tensor| {
        let (tracked, autodiff) = (tensor.is_require_grad(), tensor.is_autodiff());
        let replaced = with(tensor.without_autodiff());
        if autodiff { Tensor::from_inner(replaced).set_require_grad(tracked) } else { replaced }
    });
}

fn linear_layer(
    base: &BertForSequenceClassification,
    site: LinearSite,
) -> Result<&Linear, PeftError> {
    let layer = |index: usize| &base.bert.encoder.layer[index];
    Ok(match site {
        LinearSite::Query(index) => &layer(index).attention.self_attention.query,
        LinearSite::Key(index) => &layer(index).attention.self_attention.key,
        LinearSite::Value(index) => &layer(index).attention.self_attention.value,
        LinearSite::AttentionOutput(index) => &layer(index).attention.output.dense,
        LinearSite::Intermediate(index) => &layer(index).intermediate.dense,
        LinearSite::Output(index) => &layer(index).output.dense,
        LinearSite::Classifier => &base.classifier,
        LinearSite::Pooler => match &base.bert.pooler {
            Some(pooler) => &pooler.dense,
            None => {
                return Err(PeftError::Value {
                    key: "target_modules",
                    message: "the model has no pooler".into(),
                });
            }
        },
    })
}

fn linear_layer_mut(
    base: &mut BertForSequenceClassification,
    site: LinearSite,
) -> Option<&mut Linear> {
    let layers = &mut base.bert.encoder.layer;
    Some(match site {
        LinearSite::Query(index) => &mut layers[index].attention.self_attention.query,
        LinearSite::Key(index) => &mut layers[index].attention.self_attention.key,
        LinearSite::Value(index) => &mut layers[index].attention.self_attention.value,
        LinearSite::AttentionOutput(index) => &mut layers[index].attention.output.dense,
        LinearSite::Intermediate(index) => &mut layers[index].intermediate.dense,
        LinearSite::Output(index) => &mut layers[index].output.dense,
        LinearSite::Classifier => &mut base.classifier,
        LinearSite::Pooler => &mut base.bert.pooler.as_mut()?.dense,
    })
}

fn embedding_table(base: &BertForSequenceClassification, site: EmbeddingSite) -> &Embedding {
    let embeddings = &base.bert.embeddings;
    match site {
        EmbeddingSite::Word => &embeddings.word_embeddings,
        EmbeddingSite::Position => &embeddings.position_embeddings,
        EmbeddingSite::TokenType => &embeddings.token_type_embeddings,
    }
}

fn embedding_table_mut(
    base: &mut BertForSequenceClassification,
    site: EmbeddingSite,
) -> &mut Embedding {
    let embeddings = &mut base.bert.embeddings;
    match site {
        EmbeddingSite::Word => &mut embeddings.word_embeddings,
        EmbeddingSite::Position => &mut embeddings.position_embeddings,
        EmbeddingSite::TokenType => &mut embeddings.token_type_embeddings,
    }
}
