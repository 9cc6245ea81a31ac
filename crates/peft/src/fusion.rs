use burn::module::{Module, Param};
use burn::nn::{Dropout, DropoutConfig, Linear};
use burn::tensor::Tensor;
use nsmc_bert::Init;
use nsmc_ops::{linear, multiply, row_attention};
use serde::{Deserialize, Serialize};

use crate::PeftError;
use crate::error::check_dropout;

/// The parts of an AdapterFusion layer. The names are those of AdapterHub's `AdapterFusionConfig`.
///
/// Its `temperature` is not here: it is a counter that every forward pass moves, evaluation included.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct FusionConfig {
    /// A linear layer makes the query; otherwise it is used as it is.
    pub query: bool,
    /// A linear layer makes the keys; otherwise the adapters' outputs are used as they are.
    pub key: bool,
    /// A linear layer without bias makes the values; otherwise the adapters' outputs are used as
    /// they are.
    pub value: bool,
    /// The query is the sub-layer's dense output instead of its LayerNorm with the residual.
    pub query_before_ln: bool,
    /// Training adds `0.01 · ‖I - V‖²` where the run asks for it.
    ///
    /// Deviation: adapters keeps the key and never reads it, and adds the term for every value matrix
    /// that trains; its presets of both kinds come to the same as here.
    pub regularization: bool,
    /// The residual is added to what is attended over instead of to the result.
    pub residual_before: bool,
    /// Values are made before they are weighed. The layer is linear, so that both give the same.
    pub value_before_softmax: bool,
    /// The value matrix starts near the identity.
    pub value_initialized: bool,
    /// Dropout of the scores. With none, and with 0, it is the model's attention dropout.
    pub dropout_prob: Option<f64>,
}

impl FusionConfig {
    /// AdapterHub's default: query, key and value.
    pub fn dynamic() -> Self {
        Self {
            query: true,
            key: true,
            value: true,
            query_before_ln: false,
            regularization: true,
            residual_before: false,
            value_before_softmax: true,
            value_initialized: true,
            dropout_prob: None,
        }
    }

    /// Query and key alone.
    pub fn static_() -> Self {
        Self { value: false, regularization: false, value_initialized: false, ..Self::dynamic() }
    }

    pub(crate) fn check(&self) -> Result<(), PeftError> {
        self.dropout_prob.map_or(Ok(()), |dropout| check_dropout("dropout_prob", dropout))
    }
}

/// AdapterFusion (Pfeiffer et al., 2021): per token, attention over the adapters of a layer.
///
/// With the adapters' outputs `u_i` (without residual), query `q = Wq x + bq` and keys
/// `k_i = Wk u_i + bk`: `s_i = q · k_i`, not scaled; `p = softmax(dropout(s))`, dropout on the
/// scores; `Σ p_i Wv u_i + residual`.
///
/// Computed as `s_i = (Wkᵀ q) · u_i + q · bk` and `Wv (Σ p_i u_i)`: the same numbers with one product
/// for the keys and one for the values, however many adapters there are.
#[derive(Module, Debug)]
pub struct AdapterFusion {
    /// Makes the query.
    pub query: Option<Linear>,
    /// Makes the keys.
    pub key: Option<Linear>,
    /// Makes the values; no bias.
    pub value: Option<Linear>,
    dropout: Dropout,
    #[module(skip)]
    config: FusionConfig,
}

impl AdapterFusion {
    /// A new layer: query and key from `N(0, 0.02²)`, the value matrix 1 on its diagonal and 1e-6
    /// beside it.
    pub(crate) fn new(
        config: FusionConfig,
        hidden_size: usize,
        attention_dropout: f64,
        init: &Init<'_>,
    ) -> Self {
        let linear = |name: &str, bias| init.linear(name, hidden_size, hidden_size, bias);
        let value = config.value.then(|| {
            let mut value = linear("value", false);
            if config.value_initialized {
                value.weight = near_identity(hidden_size, init);
            }
            value
        });
        let dropout = config.dropout_prob.filter(|&prob| prob > 0.0).unwrap_or(attention_dropout);
        Self {
            query: config.query.then(|| linear("query", true)),
            key: config.key.then(|| linear("key", true)),
            value,
            dropout: DropoutConfig::new(dropout).init(),
            config,
        }
    }

    /// The layer's configuration.
    pub fn config(&self) -> FusionConfig {
        self.config
    }

    /// Weighs the adapters' outputs; also returns the weights.
    ///
    /// # Shapes
    /// - query, residual: `[rows, hidden_size]`
    /// - ups: one `[rows, hidden_size]` per adapter
    /// - output: `[rows, hidden_size]` and the weights, `[rows, adapters]`
    pub(crate) fn forward(
        &self,
        query: Tensor<2>,
        ups: &[Tensor<2>],
        residual: Tensor<2>,
    ) -> (Tensor<2>, Tensor<2>) {
        let attended: Vec<Tensor<2>> = ups
            .iter()
            .map(|up| match self.config.residual_before {
                true => up.clone() + residual.clone(),
                false => up.clone(),
            })
            .collect();
        let query = match &self.query {
            Some(layer) => linear(layer, query),
            None => query,
        };
        let (query, offset) = match &self.key {
            Some(key) => {
                let bias = key.bias.as_ref().map(|bias| bias.val().unsqueeze::<2>());
                let offset = bias.map(|bias| (query.clone() * bias).sum_dim(1));
                (multiply(query, key.weight.val().transpose()), offset)
            }
            None => (query, None),
        };
        let (context, weights) = row_attention(query, offset, attended, &self.dropout);
        let context = match &self.value {
            Some(value) => multiply(context, value.weight.val()),
            None => context,
        };
        let output = if self.config.residual_before { context } else { context + residual };
        (output, weights)
    }

    /// The value matrix `V` with the regulariser's gradient, `0.02 · (V - I)`, which is that of
    /// `0.01 · ‖I - V‖²`: both `[hidden_size, hidden_size]`. None for a layer without a value matrix, and
    /// where the configuration asks for no regularisation.
    pub fn regularizer_gradient(&self) -> Option<(&Param<Tensor<2>>, Tensor<2>)> {
        let weight = &self.value.as_ref().filter(|_| self.config.regularization)?.weight;
        let value = weight.val().inner();
        let identity = Tensor::eye(value.dims()[0], &value.device());
        Some((weight, (value - identity) * 0.02))
    }
}

fn near_identity(size: usize, init: &Init<'_>) -> Param<Tensor<2>> {
    init.param([size, size], move || {
        (0..size * size).map(|at| if at / size == at % size { 1.0 } else { 1e-6 }).collect()
    })
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Distribution, TensorData, Tolerance, activation};

    use super::*;

    fn random(device: &Device) -> Tensor<2> {
        Tensor::random([7, 6], Distribution::Normal(0.0, 1.0), device)
    }

    fn fusion(device: &Device, std: f64) -> AdapterFusion {
        AdapterFusion::new(FusionConfig::dynamic(), 6, 0.1, &Init::new(4, std, device))
    }

    fn close<const D: usize>(a: Tensor<D>, b: Tensor<D>) {
        a.into_data().assert_approx_eq::<f32>(&b.into_data(), Tolerance::absolute(1e-5));
    }

    #[test]
    fn the_output_is_that_of_the_formula() {
        let device = Device::flex();
        let mut fusion = fusion(&device, 0.7);
        // A bias and a value matrix that matter.
        let init = Init::new(9, 0.7, &device);
        fusion.key.as_mut().unwrap().bias = Some(init.enter("bias").normal([6]));
        fusion.value.as_mut().unwrap().weight = init.enter("value").normal([6, 6]);
        let (x, residual) = (random(&device), random(&device));
        let ups: Vec<_> = (0..3).map(|_| random(&device)).collect();
        let (output, weights) = fusion.forward(x.clone(), &ups, residual.clone());

        let query = fusion.query.as_ref().unwrap().forward(x);
        let scores = ups.iter().map(|up| {
            (query.clone() * fusion.key.as_ref().unwrap().forward(up.clone())).sum_dim(1)
        });
        let expected = activation::softmax(Tensor::cat(scores.collect(), 1), 1);
        close(weights, expected.clone());
        let values = ups.iter().map(|up| fusion.value.as_ref().unwrap().forward(up.clone()));
        let context = values
            .enumerate()
            .map(|(at, value)| value * expected.clone().narrow(1, at, 1))
            .reduce(|a, b| a + b);
        close(output, context.unwrap() + residual);
    }

    #[test]
    fn one_adapter_has_weight_one_and_equal_adapters_give_that_adapter() {
        let device = Device::flex();
        let fusion = fusion(&device, 0.5);
        let (x, residual, up) = (random(&device), random(&device), random(&device));
        let (output, weights) =
            fusion.forward(x.clone(), std::slice::from_ref(&up), residual.clone());
        weights.into_data().assert_eq(&TensorData::ones::<f32, _>([7, 1]), true);
        let nearly = Tolerance::absolute(1e-4);
        let expected = (up.clone() + residual.clone()).into_data();
        output.into_data().assert_approx_eq::<f32>(&expected, nearly);
        let (output, weights) = fusion.forward(x, &[up.clone(), up], residual);
        output.into_data().assert_approx_eq::<f32>(&expected, nearly);
        close(weights, Tensor::full([7, 2], 0.5, &device));
    }

    #[test]
    fn the_regularizer_is_one_hundredth_of_the_squared_distance_to_the_identity() {
        let device = Device::flex().autodiff();
        let mut fusion = fusion(&device, 0.3);
        // Far from the identity, where the gradient would be 0.
        fusion.value.as_mut().unwrap().weight = Init::new(9, 0.7, &device).normal([6, 6]);
        let value = fusion.value.as_ref().unwrap().weight.val();
        let loss = (Tensor::eye(6, &device) - value.clone()).square().sum() * 0.01;
        let gradient = value.grad(&loss.backward()).unwrap();
        close(gradient, fusion.regularizer_gradient().unwrap().1);
        let static_ =
            AdapterFusion::new(FusionConfig::static_(), 6, 0.1, &Init::new(1, 0.1, &device));
        assert!(static_.value.is_none() && static_.regularizer_gradient().is_none());
    }
}
