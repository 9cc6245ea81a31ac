use burn::backend::Flex;
use burn::tensor::Tensor;
use burn_flex::FlexTensor;
use multiversion::multiversion;
use rayon::prelude::*;

use crate::parallel;
use crate::storage::{Elements, has_kernel, update};

/// The moments of a parameter.
pub struct Moments<const D: usize> {
    /// `m`, the mean of gradients.
    pub first: Tensor<D>,
    /// `v`, the mean of squared gradients.
    pub second: Tensor<D>,
}

/// The numbers of one step of Adam with decoupled weight decay:
///
/// - `m ← β₁ m + (1 - β₁) g`
/// - `v ← β₂ v + (1 - β₂) g²`
/// - `u = size · m / (√v / correction + ε)`
/// - `p ← (1 - decay) p - u`, or with `decay_last`, `p ← (1 - decay) (p - u)`
#[derive(Clone, Copy, Debug)]
pub struct AdamWStep {
    /// β₁
    pub beta1: f64,
    /// β₂
    pub beta2: f64,
    /// ε
    pub epsilon: f64,
    /// Learning rate with the bias corrections that are not in `correction`.
    pub size: f64,
    /// Divides √v.
    pub correction: f64,
    /// Learning rate times weight decay.
    pub decay: f64,
    /// Whether the update decays, too.
    pub decay_last: bool,
}

/// One step; `moments` are none before the first, which is as if they were 0.
///
/// On `flex` one pass over all four tensors, in place.
///
/// # Panics
///
/// If the four are not of one shape.
pub fn adamw_step<const D: usize>(
    step: AdamWStep,
    parameter: Tensor<D>,
    gradient: Tensor<D>,
    moments: Option<Moments<D>>,
) -> (Tensor<D>, Moments<D>) {
    let moments = moments
        .unwrap_or_else(|| Moments { first: gradient.zeros_like(), second: gradient.zeros_like() });
    let tensors = [&parameter, &gradient, &moments.first, &moments.second];
    assert!(
        tensors.iter().all(|tensor| tensor.dims() == parameter.dims()),
        "gradient and moments have the parameter's shape"
    );
    if !tensors.into_iter().all(has_kernel) {
        return composed(step, parameter, gradient, moments);
    }
    let primitive = |tensor: Tensor<D>| {
        tensor.try_into_primitive::<Flex>().expect("a tensor of `flex` without autodiff")
    };
    let [parameter, first, second] = step.kernel(
        primitive(parameter),
        &Elements::of(primitive(gradient)),
        primitive(moments.first),
        primitive(moments.second),
    );
    let tensor = Tensor::from_primitive::<Flex>;
    (tensor(parameter), Moments { first: tensor(first), second: tensor(second) })
}

fn composed<const D: usize>(
    step: AdamWStep,
    parameter: Tensor<D>,
    gradient: Tensor<D>,
    moments: Moments<D>,
) -> (Tensor<D>, Moments<D>) {
    let first = moments.first * step.beta1 + gradient.clone() * (1.0 - step.beta1);
    let second = moments.second * step.beta2 + gradient.square() * (1.0 - step.beta2);
    let denominator = second.clone().sqrt() / step.correction + step.epsilon;
    let change = first.clone() / denominator * step.size;
    let decay = |tensor: Tensor<D>| {
        if step.decay == 0.0 { tensor } else { tensor * (1.0 - step.decay) }
    };
    let parameter =
        if step.decay_last { decay(parameter - change) } else { decay(parameter) - change };
    (parameter, Moments { first, second })
}

impl AdamWStep {
    fn kernel(
        self,
        parameter: FlexTensor,
        gradient: &Elements,
        first: FlexTensor,
        second: FlexTensor,
    ) -> [FlexTensor; 3] {
        let mut first_out = None;
        let mut second_out = None;
        let parameter = update(parameter, |parameter| {
            first_out = Some(update(first, |first| {
                second_out = Some(update(second, |second| {
                    self.run(parameter, gradient.floats(), first, second);
                }));
            }));
        });
        [
            parameter,
            first_out.expect("`update` runs what it is given"),
            second_out.expect("`update` runs what it is given"),
        ]
    }

    fn run(self, parameter: &mut [f32], gradient: &[f32], first: &mut [f32], second: &mut [f32]) {
        let moments =
            first.par_chunks_mut(parallel::BLOCK).zip(second.par_chunks_mut(parallel::BLOCK));
        parameter
            .par_chunks_mut(parallel::BLOCK)
            .zip(gradient.par_chunks(parallel::BLOCK))
            .zip(moments)
            .for_each(|((parameter, gradient), (first, second))| {
                step_block(self, parameter, gradient, first, second);
            });
    }
}

#[multiversion(targets("x86_64+avx512f+avx512dq", "x86_64+avx2"))]
fn step_block(
    step: AdamWStep,
    parameter: &mut [f32],
    gradient: &[f32],
    first: &mut [f32],
    second: &mut [f32],
) {
    let (beta1, beta2) = (step.beta1 as f32, step.beta2 as f32);
    let (rest1, rest2) = ((1.0 - step.beta1) as f32, (1.0 - step.beta2) as f32);
    let (epsilon, size) = (step.epsilon as f32, step.size as f32);
    let correction = step.correction as f32;
    let kept = (1.0 - step.decay) as f32;
    let (before, after) = if step.decay_last { (1.0, kept) } else { (kept, 1.0) };
    let moments = first.iter_mut().zip(second);
    for ((p, &g), (m, v)) in parameter.iter_mut().zip(gradient).zip(moments) {
        *m = *m * beta1 + g * rest1;
        *v = *v * beta2 + g * g * rest2;
        let change = *m / (v.sqrt() / correction + epsilon) * size;
        *p = (*p * before - change) * after;
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tolerance};

    use super::*;
    use crate::extension::tests::random;

    #[test]
    fn the_kernel_is_the_composition() {
        let device = Device::flex();
        let new = |size, seed| Tensor::<2>::from_data(random([67, 513], size, seed), &device);
        for decay_last in [false, true] {
            let step = AdamWStep {
                beta1: 0.9,
                beta2: 0.99,
                epsilon: 1e-3,
                size: 0.3,
                correction: 0.7,
                decay: 0.05,
                decay_last,
            };
            let mut kernel = (new(1.0, 1), None);
            let mut expected = (new(1.0, 1), Moments { first: new(0.0, 1), second: new(0.0, 1) });
            for round in 2..5 {
                let (parameter, moments) = adamw_step(step, kernel.0, new(2.0, round), kernel.1);
                kernel = (parameter, Some(moments));
                expected = composed(step, expected.0, new(2.0, round), expected.1);
            }
            let close = Tolerance::<f32>::default().set_absolute(1e-6).set_relative(1e-6);
            let moments = kernel.1.unwrap();
            for (found, expected) in [
                (kernel.0, expected.0),
                (moments.first, expected.1.first),
                (moments.second, expected.1.second),
            ] {
                found.into_data().assert_approx_eq::<f32>(&expected.into_data(), close);
            }
        }
    }

    #[test]
    fn tensors_that_others_hold_stay_as_they_were() {
        let device = Device::flex();
        let parameter = Tensor::<1>::from_floats([1.0, 2.0], &device);
        let step = AdamWStep {
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            size: 0.1,
            correction: 1.0,
            decay: 0.0,
            decay_last: false,
        };
        let (moved, _) = adamw_step(step, parameter.clone(), parameter.clone(), None);
        assert_eq!(parameter.into_data().try_to_vec::<f32>().unwrap(), [1.0, 2.0]);
        assert!(moved.into_data().try_to_vec::<f32>().unwrap()[0] < 1.0);
    }
}
