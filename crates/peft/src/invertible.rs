use burn::module::Module;
use burn::nn::Linear;
use burn::tensor::Tensor;
use nsmc_bert::{Activation, Init};

use crate::InvertibleConfig;
use crate::bottleneck::reduced;

/// A NICE coupling block (Dinh et al., 2015) behind the embeddings, as in MAD-X.
///
/// The hidden state is split in halves `[x1 | x2]`: `y1 = x1 + F(x2)`, `y2 = x2 + G(y1)`.
#[derive(Module, Debug)]
pub struct NiceCouplingBlock {
    /// From the second half to the first.
    pub f: CouplingNetwork,
    /// From the first half to the second.
    pub g: CouplingNetwork,
}

/// `linear(non_linearity(linear(x)))`.
#[derive(Module, Debug)]
pub struct CouplingNetwork {
    /// Narrows.
    pub down: Linear,
    /// Widens.
    pub up: Linear,
    #[module(skip)]
    non_linearity: Activation,
}

impl NiceCouplingBlock {
    /// A new block: weights from `N(0, 0.02²)`, biases 0.
    pub(crate) fn new(config: &InvertibleConfig, hidden_size: usize, init: &Init<'_>) -> Self {
        let first = hidden_size / 2;
        let second = hidden_size - first;
        let network = |name: &str, d_input: usize, d_output: usize| {
            let init = init.enter(name);
            let inner = reduced(d_input, config.reduction_factor);
            CouplingNetwork {
                down: init.linear("down", d_input, inner, true),
                up: init.linear("up", inner, d_output, true),
                non_linearity: config.non_linearity,
            }
        };
        Self { f: network("F", second, first), g: network("G", first, second) }
    }

    /// `[x1 | x2]` to `[y1 | y2]`; `[rows, hidden_size]`.
    pub fn forward(&self, hidden_states: Tensor<2>) -> Tensor<2> {
        let (x1, x2) = self.halves(hidden_states);
        let y1 = x1 + self.f.forward(x2.clone());
        let y2 = x2 + self.g.forward(y1.clone());
        Tensor::cat(vec![y1, y2], 1)
    }

    /// `[y1 | y2]` back to `[x1 | x2]`: `x2 = y2 - G(y1)`, `x1 = y1 - F(x2)`.
    pub fn inverse(&self, hidden_states: Tensor<2>) -> Tensor<2> {
        let (y1, y2) = self.halves(hidden_states);
        let x2 = y2 - self.g.forward(y1.clone());
        let x1 = y1 - self.f.forward(x2.clone());
        Tensor::cat(vec![x1, x2], 1)
    }

    fn halves(&self, hidden_states: Tensor<2>) -> (Tensor<2>, Tensor<2>) {
        let [_, width] = hidden_states.dims();
        let [first, _] = self.g.down.weight.dims();
        (hidden_states.clone().narrow(1, 0, first), hidden_states.narrow(1, first, width - first))
    }
}

impl CouplingNetwork {
    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.up.forward(self.non_linearity.forward(self.down.forward(x)))
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Distribution, Tolerance};

    use super::*;

    #[test]
    fn its_networks_are_as_narrow_as_pythons_floor_division_makes_them() {
        let device = Device::flex();
        // F narrows the second half, G the first: `int(16 // 3.2)` is 4, `int(17 // 1.6)` 10 and
        // `int(16 // 1.6)` 9.
        for (width, factor, expected) in [(32, 3.2, [4, 4]), (33, 1.6, [10, 9])] {
            let config =
                InvertibleConfig { reduction_factor: factor, non_linearity: Activation::Relu };
            let block = NiceCouplingBlock::new(&config, width, &Init::new(1, 0.5, &device));
            let inner = [&block.f, &block.g].map(|network| network.down.weight.dims()[1]);
            assert_eq!(inner, expected, "{factor}");
        }
    }

    #[test]
    fn the_inverse_undoes_the_block() {
        let device = Device::flex();
        let config = InvertibleConfig { reduction_factor: 2.0, non_linearity: Activation::GeluNew };
        // An odd width: the halves differ.
        let block = NiceCouplingBlock::new(&config, 9, &Init::new(1, 0.5, &device));
        let x = Tensor::<2>::random([5, 9], Distribution::Normal(0.0, 1.0), &device);
        let y = block.forward(x.clone());
        assert!((y.clone() - x.clone()).abs().max().into_scalar::<f32>() > 0.1);
        let back = block.inverse(y);
        back.into_data().assert_approx_eq::<f32>(&x.into_data(), Tolerance::absolute(1e-5));
    }
}
