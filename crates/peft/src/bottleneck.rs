use std::collections::BTreeMap;

use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig, Linear};
use burn::tensor::Tensor;
use nsmc_bert::{Activation, Init};
use nsmc_ops::{LayerNorm, dropout, linear};
use serde::{Deserialize, Serialize};

use crate::PeftError;
use crate::error::check_dropout;

/// What a reduction factor may be: more than a thousand times the model's width is a mistake, or
/// meant to take all memory.
const FACTORS: std::ops::RangeInclusive<f64> = 1e-3..=1e6;

/// A bottleneck adapter's shape and place. The names are those of AdapterHub's `BnConfig`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BottleneckConfig {
    /// An adapter after attention.
    pub mh_adapter: bool,
    /// An adapter after the feed-forward layer.
    pub output_adapter: bool,
    /// `hidden_size` over the bottleneck's width.
    pub reduction_factor: f64,
    /// Layers with a reduction factor of their own.
    pub layer_reduction_factors: BTreeMap<usize, f64>,
    /// Layers without adapter.
    pub leave_out: Vec<usize>,
    /// Between the two projections.
    pub non_linearity: Activation,
    /// The adapter's input is `LayerNorm(hidden_states + residual)`, by the sub-layer's own
    /// LayerNorm.
    pub original_ln_before: bool,
    /// The sub-layer ends with its own LayerNorm of the adapter's output and the residual.
    pub original_ln_after: bool,
    /// A LayerNorm of the adapter's own on its input.
    pub ln_before: bool,
    /// A LayerNorm of the adapter's own on its output.
    pub ln_after: bool,
    /// What is added to the adapter's output.
    pub residual_before_ln: AdapterResidual,
    /// With `ln_after`: whether the residual is added before it.
    pub adapter_residual_before_ln: bool,
    /// Scales the output of the bottleneck.
    pub scaling: f64,
    /// Dropout of the scaled output.
    pub dropout: f64,
    /// An invertible adapter behind the embeddings.
    pub invertible: Option<InvertibleConfig>,
}

/// What is added to an adapter's output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdapterResidual {
    /// The sub-layer's dense output, before residual and LayerNorm (`true`).
    Hidden,
    /// The adapter's own input (`false`).
    Input,
    /// The dense output with the sub-layer's residual (`"post_add"`); needs `original_ln_before`.
    PostAdd,
}

/// A NICE coupling block behind the embeddings.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct InvertibleConfig {
    /// Half of `hidden_size` over the width of each of its networks.
    pub reduction_factor: f64,
    /// Between the two projections of each of its networks.
    ///
    /// Deviation: AdapterHub from version 2 on has no such key and uses the adapter's own; adapters
    /// of 2020 were trained with ReLU.
    pub non_linearity: Activation,
}

impl BottleneckConfig {
    /// One adapter per layer, after the feed-forward layer (Pfeiffer et al., 2020): AdapterHub's
    /// `seq_bn`.
    pub fn pfeiffer(reduction_factor: f64) -> Self {
        Self {
            mh_adapter: false,
            output_adapter: true,
            reduction_factor,
            layer_reduction_factors: BTreeMap::new(),
            leave_out: Vec::new(),
            non_linearity: Activation::Relu,
            original_ln_before: true,
            original_ln_after: true,
            ln_before: false,
            ln_after: false,
            residual_before_ln: AdapterResidual::Hidden,
            adapter_residual_before_ln: false,
            scaling: 1.0,
            dropout: 0.0,
            invertible: None,
        }
    }

    /// Two adapters per layer, after attention and after the feed-forward layer (Houlsby et al.,
    /// 2019): AdapterHub's `double_seq_bn`.
    pub fn houlsby(reduction_factor: f64) -> Self {
        Self {
            mh_adapter: true,
            non_linearity: Activation::Swish,
            original_ln_before: false,
            ..Self::pfeiffer(reduction_factor)
        }
    }

    /// The same with an invertible adapter of reduction factor 2: AdapterHub's `..._inv`.
    #[must_use]
    pub fn with_invertible(mut self) -> Self {
        self.invertible =
            Some(InvertibleConfig { reduction_factor: 2.0, non_linearity: self.non_linearity });
        self
    }

    /// The bottleneck's width in a layer; none if the layer is left out.
    pub fn bottleneck_size(&self, hidden_size: usize, layer: usize) -> Option<usize> {
        if self.leave_out.contains(&layer) {
            return None;
        }
        let factor = self.layer_reduction_factors.get(&layer).unwrap_or(&self.reduction_factor);
        Some(reduced(hidden_size, *factor).max(1))
    }

    /// Refuses layers that a model of this size does not have, and an invertible block so narrow that
    /// nothing goes through its networks.
    pub(crate) fn check_size(
        &self,
        hidden_size: usize,
        num_hidden_layers: usize,
    ) -> Result<(), PeftError> {
        let left_out = self.leave_out.iter().map(|layer| ("leave_out", layer));
        let own = self.layer_reduction_factors.keys();
        let own = own.map(|layer| ("layer_reduction_factors", layer));
        for (key, layer) in left_out.chain(own) {
            if *layer >= num_hidden_layers {
                let last = num_hidden_layers - 1;
                let message = format!("the model has the layers 0 to {last}, found {layer}");
                return Err(PeftError::Value { key, message });
            }
        }
        // The narrower half of the hidden states.
        let half = hidden_size / 2;
        match self.invertible.map(|invertible| invertible.reduction_factor) {
            // Deviation: AdapterHub makes such a network, which gives a bias and no more.
            Some(factor) if reduced(half, factor) == 0 => Err(PeftError::Value {
                key: "inv_adapter_reduction_factor",
                message: format!(
                    "expected a number from {:e} to {half}, half of the model's `hidden_size`, \
                     found {factor:e}",
                    FACTORS.start()
                ),
            }),
            _ => Ok(()),
        }
    }

    pub(crate) fn check(&self) -> Result<(), PeftError> {
        let check_factor = |key, factor: f64, of: String| {
            if FACTORS.contains(&factor) {
                return Ok(());
            }
            let (least, most) = (FACTORS.start(), FACTORS.end());
            let message =
                format!("expected a number from {least:e} to {most:e}{of}, found {factor:e}");
            Err(PeftError::Value { key, message })
        };
        check_factor("reduction_factor", self.reduction_factor, String::new())?;
        for (layer, &factor) in &self.layer_reduction_factors {
            check_factor("layer_reduction_factors", factor, format!(" for layer {layer}"))?;
        }
        if let Some(invertible) = &self.invertible {
            let factor = invertible.reduction_factor;
            check_factor("inv_adapter_reduction_factor", factor, String::new())?;
        }
        check_dropout("dropout", self.dropout)?;
        if !self.mh_adapter && !self.output_adapter {
            return Err(PeftError::Value {
                key: "output_adapter",
                message: "expected `mh_adapter` or `output_adapter` to be true".into(),
            });
        }
        // The library sets no residual then, and fails in its forward pass.
        if self.residual_before_ln == AdapterResidual::PostAdd && !self.original_ln_before {
            return Err(PeftError::Value {
                key: "residual_before_ln",
                message: "expected true or false where `original_ln_before` is false, found \
                          \"post_add\""
                    .into(),
            });
        }
        Ok(())
    }
}

/// Python's `int(width // factor)`.
///
/// The quotient's floor is another number: 768 / 3.2 rounds to 240, but 240 times the float 3.2 is
/// more than 768, and Python says 239. As CPython, the exact remainder is taken off first, after
/// which the quotient is a whole number but for rounding.
pub(crate) fn reduced(width: usize, factor: f64) -> usize {
    let width = width as f64;
    ((width - width % factor) / factor).round() as usize
}

/// A bottleneck adapter at one place: `up(non_linearity(down(x))) · scaling`, plus a residual.
#[derive(Module, Debug)]
pub struct BottleneckAdapter {
    adapter_norm_before: Option<LayerNorm>,
    /// `hidden_size` to the bottleneck.
    pub adapter_down: Linear,
    /// The bottleneck to `hidden_size`.
    pub adapter_up: Linear,
    adapter_norm_after: Option<LayerNorm>,
    dropout: Dropout,
    #[module(skip)]
    config: BottleneckConfig,
}

impl BottleneckAdapter {
    /// A new adapter: weights from `N(0, 0.02²)`, biases 0, so that it is the identity only nearly.
    pub(crate) fn new(
        config: &BottleneckConfig,
        hidden_size: usize,
        bottleneck_size: usize,
        init: &Init<'_>,
    ) -> Self {
        // PyTorch's default epsilon, not BERT's.
        let norm = |wanted: bool| wanted.then(|| init.layer_norm(hidden_size, 1e-5));
        Self {
            adapter_norm_before: norm(config.ln_before),
            adapter_down: init.linear("adapter_down", hidden_size, bottleneck_size, true),
            adapter_up: init.linear("adapter_up", bottleneck_size, hidden_size, true),
            adapter_norm_after: norm(config.ln_after),
            dropout: DropoutConfig::new(config.dropout).init(),
            config: config.clone(),
        }
    }

    /// The adapter's configuration.
    pub fn config(&self) -> &BottleneckConfig {
        &self.config
    }

    /// The adapter's input and the residual that is added to its output.
    ///
    /// For a Pfeiffer adapter the input is `LayerNorm(hidden_states + input)`, but the residual is
    /// `hidden_states`, from before the LayerNorm.
    pub(crate) fn pre_forward(
        &self,
        hidden_states: Tensor<2>,
        input: &Tensor<2>,
        layer_norm: &LayerNorm,
    ) -> (Tensor<2>, Tensor<2>) {
        let before = hidden_states.clone();
        let normed = if self.config.original_ln_before {
            layer_norm.forward_sum(hidden_states, input.clone())
        } else {
            hidden_states
        };
        let residual = match self.config.residual_before_ln {
            AdapterResidual::Input => normed.clone(),
            AdapterResidual::PostAdd => before + input.clone(),
            AdapterResidual::Hidden => before,
        };
        (normed, residual)
    }

    /// `up(non_linearity(down(x))) · scaling`, without the residual: what AdapterFusion attends to.
    pub(crate) fn bottleneck(&self, x: Tensor<2>) -> Tensor<2> {
        let x = match &self.adapter_norm_before {
            Some(norm) => norm.forward(x),
            None => x,
        };
        let down = self.config.non_linearity.forward(linear(&self.adapter_down, x));
        let up = linear(&self.adapter_up, down);
        if (self.config.scaling - 1.0).abs() < f64::EPSILON { up } else { up * self.config.scaling }
    }

    /// The adapter's output from its bottleneck's.
    pub(crate) fn finish(&self, up: Tensor<2>, residual: Tensor<2>) -> Tensor<2> {
        let output = dropout(&self.dropout, up);
        match &self.adapter_norm_after {
            Some(norm) if self.config.adapter_residual_before_ln => norm.forward(output + residual),
            Some(norm) => norm.forward(output) + residual,
            None => output + residual,
        }
    }

    /// How the sub-layer ends after this adapter.
    pub(crate) fn post_forward(
        &self,
        hidden_states: Tensor<2>,
        input: Tensor<2>,
        layer_norm: &LayerNorm,
    ) -> Tensor<2> {
        if self.config.original_ln_after {
            layer_norm.forward_sum(hidden_states, input)
        } else {
            hidden_states
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_may_have_a_width_of_its_own_or_none() {
        let config = BottleneckConfig {
            layer_reduction_factors: BTreeMap::from([(0, 8.0), (3, 5000.0)]),
            leave_out: vec![1],
            ..BottleneckConfig::pfeiffer(16.0)
        };
        let sizes: Vec<_> = (0..4).map(|layer| config.bottleneck_size(768, layer)).collect();
        assert_eq!(sizes, [Some(96), None, Some(48), Some(1)]);
        assert!(config.check_size(768, 4).is_ok());
        let message = config.check_size(768, 3).unwrap_err().to_string();
        assert!(message.contains("layer_reduction_factors") && message.ends_with("found 3"));
        let message = config.check_size(768, 1).unwrap_err().to_string();
        assert!(message.contains("`leave_out`"), "{message}");
    }

    #[test]
    fn a_width_is_that_of_pythons_floor_division() {
        // `[int(768 // factor), int(32 // factor)]` of CPython 3.11; the floor of the quotient is one
        // more wherever the factor is no whole number, but for 32 / 12.8.
        for (factor, expected) in [
            (3.2, [239, 9]),
            (1.6, [479, 19]),
            (6.4, [119, 4]),
            (12.8, [59, 2]),
            (0.1, [7679, 319]),
            (0.2, [3839, 159]),
            (0.4, [1919, 79]),
            (0.8, [959, 39]),
            (0.3, [2560, 106]),
            (0.001, [767_999, 31_999]),
            (7.7, [99, 4]),
            (2.0, [384, 16]),
            (3.0, [256, 10]),
            (16.0, [48, 2]),
        ] {
            let config = BottleneckConfig::pfeiffer(factor);
            let sizes = [768, 32].map(|width| config.bottleneck_size(width, 0).unwrap());
            assert_eq!(sizes, expected, "{factor}");
        }
    }

    #[test]
    fn impossible_values_are_refused() {
        let bad = BottleneckConfig { reduction_factor: 0.0, ..BottleneckConfig::pfeiffer(16.0) };
        assert!(bad.check().unwrap_err().to_string().contains("`reduction_factor`"));
        let mut bad = BottleneckConfig::pfeiffer(16.0).with_invertible();
        bad.invertible.as_mut().unwrap().reduction_factor = -1.0;
        let message = bad.check().unwrap_err().to_string();
        assert!(message.starts_with("`inv_adapter_reduction_factor`: expected"), "{message}");
        let layer_reduction_factors = BTreeMap::from([(3, f64::NAN)]);
        let bad = BottleneckConfig { layer_reduction_factors, ..BottleneckConfig::pfeiffer(16.0) };
        let message = bad.check().unwrap_err().to_string();
        assert!(message.starts_with("`layer_reduction_factors`: expected"), "{message}");
        assert!(message.ends_with("for layer 3, found NaN"), "{message}");
        let bad = BottleneckConfig { output_adapter: false, ..BottleneckConfig::pfeiffer(16.0) };
        assert!(bad.check().unwrap_err().to_string().contains("`output_adapter`"));
        let post_add = BottleneckConfig {
            residual_before_ln: AdapterResidual::PostAdd,
            ..BottleneckConfig::pfeiffer(16.0)
        };
        assert!(post_add.check().is_ok());
        let bad = BottleneckConfig { original_ln_before: false, ..post_add };
        assert!(bad.check().unwrap_err().to_string().contains("`residual_before_ln`"));
    }
}
