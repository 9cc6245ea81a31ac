use std::f64::consts::PI;

use burn::tensor::{Tensor, activation};
use serde::{Deserialize, Serialize};

/// An activation function, by its name in transformers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// `x · Φ(x) = x · ½ (1 + erf(x / √2))`, exactly.
    Gelu,
    /// `½ x (1 + tanh(√(2/π) (x + 0.044715 x³)))`, GELU's tanh approximation.
    GeluNew,
    /// `max(x, 0)`.
    Relu,
    /// `x · σ(x)`, also called SiLU.
    #[serde(alias = "silu")]
    Swish,
    /// `tanh(x)`.
    Tanh,
}

impl Activation {
    /// Applies the function to every element.
    pub fn forward<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        match self {
            Self::Gelu => nsmc_ops::gelu(x),
            Self::GeluNew => {
                let cube = x.clone().powi_scalar(3);
                let inner = (x.clone() + cube * 0.044_715) * (2.0 / PI).sqrt();
                x * 0.5 * (inner.tanh() + 1.0)
            }
            Self::Relu => activation::relu(x),
            Self::Swish => activation::silu(x),
            Self::Tanh => x.tanh(),
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tolerance};

    use super::*;

    /// (x, f(x), f'(x)) from PyTorch 2.11, float64.
    fn check(activation: Activation, expected: [(f64, f64, f64); 4]) {
        let device = Device::flex().autodiff();
        let x = Tensor::<1>::from_floats(expected.map(|(x, ..)| x as f32), &device).require_grad();
        let y = activation.forward(x.clone());
        let gradient = x.grad(&y.clone().sum().backward()).unwrap();
        let close = Tolerance::<f32>::absolute(2e-6);
        y.into_data().assert_approx_eq(
            &burn::tensor::TensorData::from(expected.map(|(_, y, _)| y as f32)),
            close,
        );
        gradient.into_data().assert_approx_eq(
            &burn::tensor::TensorData::from(expected.map(|(.., dy)| dy as f32)),
            close,
        );
    }

    #[test]
    fn values_and_gradients_are_those_of_pytorch() {
        check(
            Activation::Gelu,
            [
                (-2.02, -0.043_817_221_411, -0.083_072_731_132),
                (-0.3, -0.114_626_573_343, 0.267_672_233_173),
                (0.7, 0.530_625_443_444, 0.976_614_101_134),
                (2.02, 1.976_182_778_589, 1.083_072_731_132),
            ],
        );
        check(
            Activation::GeluNew,
            [
                (-2.02, -0.043_701_900_586, -0.083_941_177_800),
                (-0.3, -0.114_629_076_457, 0.267_704_548_361),
                (0.7, 0.530_570_134_705, 0.976_357_218_656),
                (2.02, 1.976_298_099_414, 1.083_941_177_800),
            ],
        );
        check(
            Activation::Relu,
            [(-2.02, 0.0, 0.0), (-0.3, 0.0, 0.0), (0.7, 0.7, 1.0), (2.02, 2.02, 1.0)],
        );
        check(
            Activation::Swish,
            [
                (-2.02, -0.236_580_361_569, -0.091_753_317_485),
                (-0.3, -0.127_667_244_957, 0.352_219_989_681),
                (0.7, 0.467_731_440_518, 0.823_386_783_473),
                (2.02, 1.783_419_638_431, 1.091_753_317_485),
            ],
        );
        check(
            Activation::Tanh,
            [
                (-2.02, -0.965_413_686_860, 0.067_976_413_223),
                (-0.3, -0.291_312_612_452, 0.915_136_961_827),
                (0.7, 0.604_367_777_117, 0.634_739_589_982),
                (2.02, 0.965_413_686_860, 0.067_976_413_223),
            ],
        );
    }
}
