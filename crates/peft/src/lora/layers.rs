use burn::module::{Module, Param};
use burn::nn::{Dropout, DropoutConfig, Embedding, Linear};
use burn::tensor::{Int, Tensor};
use nsmc_bert::{EmbeddingSite, Init, LinearSite};
use nsmc_ops::{LowRank, dropout, gather, low_rank_linear};

use super::{LoraConfig, LoraLayer};

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

impl LoraLinear {
    /// An update that changes nothing: `A` is drawn evenly from `±1/√in` (PyTorch's
    /// `kaiming_uniform_(a=√5)`), `B` is 0, and DoRA's magnitudes are those of the base's weight.
    pub(super) fn new(
        config: &LoraConfig,
        LoraLayer { rank, scaling, .. }: LoraLayer,
        site: LinearSite,
        linear: &Linear,
        init: &Init<'_>,
    ) -> Self {
        let [d_input, d_output] = linear.weight.lazy_shape().dims();
        let mut lora_a = init.linear("lora_A", d_input, rank, false);
        let bound = 1.0 / (d_input as f64).sqrt();
        lora_a.weight = init.enter("lora_A").uniform([d_input, rank], bound);
        let mut lora_b = init.linear("lora_B", rank, d_output, false);
        lora_b.weight = init.param([rank, d_output], move || vec![0.0; rank * d_output]);
        Self {
            lora_a,
            lora_b,
            lora_magnitude_vector: config.use_dora.then(|| magnitude(linear)),
            dropout: DropoutConfig::new(config.dropout).init(),
            scaling,
            site,
        }
    }

    /// Where the update is.
    pub fn site(&self) -> LinearSite {
        self.site
    }

    /// `x · W + b + dropout(x) · A · B · scaling`, or its DoRA form: with `V = W + A · B · scaling`
    /// and its norms by column, which take no gradient, `(m / ‖V‖) · (x · V) + b`.
    pub(crate) fn forward(&self, linear: &Linear, input: &Tensor<2>) -> Tensor<2> {
        let Some(magnitude) = &self.lora_magnitude_vector else {
            let update = LowRank {
                dropped: self.drops(input).then(|| dropout(&self.dropout, input.clone())),
                a: self.lora_a.weight.val(),
                b: self.lora_b.weight.val(),
                scaling: self.scaling,
            };
            return low_rank_linear(linear, input.clone(), update);
        };
        let base = nsmc_ops::linear(linear, input.clone());
        let dropped = dropout(&self.dropout, input.clone());
        let update = self.lora_b.forward(self.lora_a.forward(dropped.clone())) * self.scaling;

        let weight = linear.weight.val();
        let norm = column_norm(weight.clone().without_autodiff() + self.delta());
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

    /// `A · B · scaling`, off the tape.
    pub(super) fn delta(&self) -> Tensor<2> {
        self.lora_a
            .weight
            .val()
            .without_autodiff()
            .matmul(self.lora_b.weight.val().without_autodiff())
            * self.scaling
    }
}

impl LoraEmbedding {
    /// An update that changes nothing: `A` is 0, and `B` is drawn from `N(0, 1)`.
    pub(super) fn new(
        LoraLayer { rank, scaling, .. }: LoraLayer,
        site: EmbeddingSite,
        table: &Embedding,
        init: &Init<'_>,
    ) -> Self {
        let [entries, width] = table.weight.lazy_shape().dims();
        let mut lora_embedding_a = init.embedding("lora_embedding_A", entries, rank, None);
        lora_embedding_a.weight = init.param([entries, rank], move || vec![0.0; entries * rank]);
        let unit = init.with_std(1.0);
        let lora_embedding_b = unit.linear("lora_embedding_B", rank, width, false);
        Self { lora_embedding_a, lora_embedding_b, scaling, site }
    }

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
        let base = gather(embedding.weight.val(), ids.clone(), padding);
        let low = gather(self.lora_embedding_a.weight.val(), ids, padding);
        base + self.lora_embedding_b.forward(low) * self.scaling
    }

    pub(super) fn delta(&self) -> Tensor<2> {
        let (a, b) = (&self.lora_embedding_a.weight, &self.lora_embedding_b.weight);
        a.val().without_autodiff().matmul(b.val().without_autodiff()) * self.scaling
    }
}

/// The Euclidean norm of each column: `[1, columns]`.
pub(super) fn column_norm(matrix: Tensor<2>) -> Tensor<2> {
    matrix.square().sum_dim(0).sqrt()
}

fn magnitude(layer: &Linear) -> Param<Tensor<1>> {
    let weight = layer.weight.val();
    let device = weight.device();
    let norms = column_norm(weight.without_autodiff()).flatten::<1>(0, 1).into_data();
    Param::from_data(norms, &device)
}
