use burn::module::{Param, ParamId};
use burn::nn::{Embedding, EmbeddingConfig, Linear, LinearConfig};
use burn::tensor::{Device, Shape, Tensor, TensorData};
use nsmc_ops::LayerNorm;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Normal, Uniform};
use sha2::{Digest, Sha256};

/// Makes new modules whose weights are a pure function of a seed and their names.
///
/// The order in which parameters are made or first used, the other parameters of a model and the
/// device have no influence: the same seed gives the same new classifier whatever else a method adds.
/// Values are drawn when a parameter is first used, so that loading a checkpoint over them costs
/// nothing.
///
/// The distribution is that of transformers' BERT: weights from `N(0, std²)`, biases 0, LayerNorm 1
/// and 0.
#[derive(Clone, Debug)]
pub struct Init<'a> {
    seed: u64,
    std: f64,
    path: String,
    device: &'a Device,
}

impl<'a> Init<'a> {
    /// New weights with standard deviation `std`.
    pub fn new(seed: u64, std: f64, device: &'a Device) -> Self {
        Self { seed, std, path: String::new(), device }
    }

    /// The same with another standard deviation.
    #[must_use]
    pub fn with_std(&self, std: f64) -> Self {
        Self { std, ..self.clone() }
    }

    /// The same under a module named `name`.
    #[must_use]
    pub fn enter(&self, name: impl std::fmt::Display) -> Self {
        let path =
            if self.path.is_empty() { name.to_string() } else { format!("{}.{name}", self.path) };
        Self { path, ..self.clone() }
    }

    /// `name`: a linear layer from `d_input` to `d_output`.
    pub fn linear(&self, name: &str, d_input: usize, d_output: usize, bias: bool) -> Linear {
        let init = self.enter(name);
        // burn stores [in, out]; drawing in PyTorch's order [out, in] would gain nothing.
        let weight = init.enter("weight").normal([d_input, d_output]);
        let mut linear = LinearConfig::new(d_input, d_output)
            .with_bias(bias)
            .with_initializer(burn::nn::Initializer::Zeros)
            .init(self.device);
        linear.weight = weight;
        linear
    }

    /// `name`: an embedding table of `rows` rows; that of `padding` is 0.
    pub fn embedding(
        &self,
        name: &str,
        rows: usize,
        width: usize,
        padding: Option<usize>,
    ) -> Embedding {
        let mut embedding = EmbeddingConfig::new(rows, width)
            .with_initializer(burn::nn::Initializer::Zeros)
            .init(self.device);
        let draw = self.enter(name).enter("weight").draw(rows * width);
        embedding.weight = self.param([rows, width], move || {
            let mut values = draw();
            if let Some(padding) = padding {
                values[padding * width..(padding + 1) * width].fill(0.0);
            }
            values
        });
        embedding
    }

    /// A LayerNorm of `width`.
    pub fn layer_norm(&self, width: usize, eps: f64) -> LayerNorm {
        LayerNorm::new(width, eps, self.device)
    }

    /// A parameter drawn from `N(0, std²)` under the current name.
    pub fn normal<const D: usize>(&self, shape: [usize; D]) -> Param<Tensor<D>> {
        self.param(shape, self.draw(shape.iter().product()))
    }

    /// A parameter drawn evenly from `-bound` to `bound` under the current name.
    pub fn uniform<const D: usize>(&self, shape: [usize; D], bound: f64) -> Param<Tensor<D>> {
        let mut rng = self.rng();
        let count = shape.iter().product();
        self.param(shape, move || {
            let even = Uniform::new_inclusive(-bound as f32, bound as f32);
            even.expect("a bound is finite").sample_iter(&mut rng).take(count).collect()
        })
    }

    /// A parameter whose values `values` gives when it is first used.
    pub fn param<const D: usize>(
        &self,
        shape: [usize; D],
        values: impl FnOnce() -> Vec<f32> + Send + Sync + 'static,
    ) -> Param<Tensor<D>> {
        Param::uninitialized(
            ParamId::new(),
            move |device, require_grad| {
                let data = TensorData::new(values(), shape);
                Tensor::from_data(data, device).set_require_grad(require_grad)
            },
            self.device.clone(),
            true,
            Shape::new(shape),
        )
    }

    /// A generator of its own for the current name.
    fn rng(&self) -> ChaCha8Rng {
        let mut hasher = Sha256::new();
        hasher.update(self.seed.to_le_bytes());
        hasher.update(self.path.as_bytes());
        ChaCha8Rng::from_seed(hasher.finalize().into())
    }

    fn draw(&self, count: usize) -> impl FnOnce() -> Vec<f32> + Send + Sync + 'static + use<> {
        let mut rng = self.rng();
        let std = self.std;
        move || {
            let normal = Normal::new(0.0, std as f32).expect("a standard deviation is finite");
            normal.sample_iter(&mut rng).take(count).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(linear: &Linear) -> Vec<f32> {
        linear.weight.val().into_data().try_to_vec().unwrap()
    }

    #[test]
    fn a_weight_depends_on_seed_and_name_alone() {
        let device = Device::flex();
        let init = Init::new(1, 0.02, &device);
        let weight = values(&init.enter("a").linear("x", 20, 30, true));
        // Made after another, and used before it.
        let later = Init::new(1, 0.02, &device);
        let other = later.enter("b").linear("x", 20, 30, true);
        assert_eq!(values(&later.enter("a").linear("x", 20, 30, true)), weight);
        assert_ne!(values(&other), weight);
        assert_ne!(
            values(&Init::new(2, 0.02, &device).enter("a").linear("x", 20, 30, true)),
            weight
        );
    }

    #[test]
    fn weights_have_the_asked_for_deviation_and_padding_is_zero() {
        let device = Device::flex();
        let table = Init::new(3, 0.02, &device).embedding("words", 400, 50, Some(7));
        let values: Vec<f32> = table.weight.val().into_data().try_to_vec().unwrap();
        assert!(values[7 * 50..8 * 50].iter().all(|&value| value == 0.0));
        let n = values.len() as f64;
        let mean = values.iter().map(|&value| f64::from(value)).sum::<f64>() / n;
        let variance =
            values.iter().map(|&value| (f64::from(value) - mean).powi(2)).sum::<f64>() / n;
        assert!(mean.abs() < 5e-4, "{mean}");
        assert!((variance.sqrt() - 0.02).abs() < 5e-4, "{}", variance.sqrt());
    }
}
