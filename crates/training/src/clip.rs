use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use nsmc_ops::{scale, sum_of_squares};

/// PyTorch's `clip_grad_norm_`: scales all gradients by `min(1, max_norm / (norm + 1e-6))`, where
/// `norm` is the Euclidean norm of all of them together. Returns them with the norm before scaling.
///
/// The norm stays on the device. With `max_norm` 0 nothing is scaled.
///
/// Deviation: burn's own clipping takes the norm of each tensor by itself.
///
/// # Panics
///
/// If the module has no gradient.
pub fn clip_grad_norm<M: Module>(
    module: &M,
    gradients: GradientsParams,
    max_norm: f64,
) -> (GradientsParams, Tensor<1>) {
    let mut squares = SumOfSquares { gradients: &gradients, sum: None };
    module.visit(&mut squares);
    let norm = squares.sum.expect("a module that trains has gradients").sqrt();
    if max_norm == 0.0 {
        return (gradients, norm);
    }
    let factor = ((norm.clone() + 1e-6).recip() * max_norm).clamp_max(1.0);
    let mut scaled = Scale { gradients, factor };
    module.visit(&mut scaled);
    (scaled.gradients, norm)
}

struct SumOfSquares<'a> {
    gradients: &'a GradientsParams,
    sum: Option<Tensor<1>>,
}

impl ModuleVisitor for SumOfSquares<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.gradients.get::<D>(param.id) {
            let square = sum_of_squares(gradient);
            self.sum = Some(match self.sum.take() {
                Some(sum) => sum + square,
                None => square,
            });
        }
    }
}

struct Scale {
    gradients: GradientsParams,
    factor: Tensor<1>,
}

impl ModuleVisitor for Scale {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.gradients.remove::<D>(param.id) {
            self.gradients.register(param.id, scale(gradient, self.factor.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::nn::{Linear, LinearConfig};
    use burn::tensor::{Device, TensorData};

    use super::*;

    /// A linear layer whose weight gradient is 3 everywhere and whose bias gradient is 1.
    fn gradients() -> (Linear, GradientsParams) {
        let device = Device::flex().autodiff();
        let linear = LinearConfig::new(2, 2).init(&device);
        let input = Tensor::<2>::from_data([[3.0, 3.0]], &device);
        let gradients = linear.forward(input).sum().backward();
        let gradients = GradientsParams::from_grads(gradients, &linear);
        (linear, gradients)
    }

    fn values<const D: usize>(gradients: &GradientsParams, param: &Param<Tensor<D>>) -> Vec<f32> {
        gradients.get::<D>(param.id).unwrap().into_data().try_to_vec().unwrap()
    }

    #[test]
    fn the_norm_is_that_of_all_gradients_together() {
        // sqrt(4 · 9 + 2 · 1)
        let norm = 38f32.sqrt();
        for (max_norm, factor) in [(1.0, 1.0 / (norm + 1e-6)), (100.0, 1.0), (0.0, 1.0)] {
            let (linear, gradients) = gradients();
            let (clipped, found) = clip_grad_norm(&linear, gradients, max_norm);
            found.into_data().assert_approx_eq::<f32>(
                &TensorData::from([norm]),
                burn::tensor::Tolerance::absolute(1e-5),
            );
            for (value, expected) in
                values(&clipped, &linear.weight).into_iter().map(|value| (value, 3.0)).chain(
                    values(&clipped, linear.bias.as_ref().unwrap()).into_iter().map(|v| (v, 1.0)),
                )
            {
                assert!((value - expected * factor).abs() < 1e-6, "{value}, {max_norm}");
            }
        }
    }
}
