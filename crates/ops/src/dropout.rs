use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, unary};
use burn::backend::{Dispatch, Flex};
use burn::nn::Dropout;
use burn::tensor::{Distribution, Int, Tensor, TensorData};
use burn_flex::FlexTensor;
use multiversion::multiversion;

use crate::extension::FlexKernels;
use crate::parallel;
use crate::storage::{has_kernel, update};

/// Zeroes each element with the layer's probability and divides the others by what is left of 1, when
/// the layer trains.
///
/// What is dropped is a function of the device's random state (`Device::seed`) and of the element's
/// place alone. On `flex` the backward pass therefore draws it again; elsewhere it keeps the mask.
pub fn dropout<const D: usize>(layer: &Dropout, x: Tensor<D>) -> Tensor<D> {
    let probability = probability(layer, &x);
    drop_elements(x, probability)
}

/// The layer's probability, or 0 where burn's own layer would do nothing either: in a frozen module,
/// or without autodiff.
pub(crate) fn probability<const D: usize>(layer: &Dropout, x: &Tensor<D>) -> f64 {
    let trains = layer.training.is_enabled() && x.device().is_autodiff();
    if trains { layer.prob } else { 0.0 }
}

pub(crate) fn drop_elements<const D: usize>(x: Tensor<D>, probability: f64) -> Tensor<D> {
    if probability == 0.0 {
        return x;
    }
    if has_kernel(&x) {
        let seed = draw_seed(&x);
        return Tensor::from_dispatch(<Dispatch as FlexKernels>::dropout(
            x.into_dispatch(),
            probability,
            seed,
        ));
    }
    let kept = 1.0 - probability;
    let mask = x.random_like(Distribution::Bernoulli(kept));
    x * mask * (1.0 / kept)
}

/// 64 bits of the device's random state.
pub(crate) fn draw_seed<const D: usize>(tensor: &Tensor<D>) -> u64 {
    let range = Distribution::Uniform(0.0, f64::from(1 << 16));
    let words: TensorData = Tensor::<1, Int>::random([4], range, &tensor.device()).into_data();
    words.iter::<i64>().fold(0, |seed, word| seed << 16 | (word as u64 & 0xffff))
}

pub(crate) fn drop(x: FlexTensor, probability: f64, seed: u64) -> FlexTensor {
    let mask = Mask::new(probability, seed, 0);
    update(x, |x| parallel::blocks(x, |first, x| mask.apply(first, x)))
}

/// Which elements are dropped.
#[derive(Clone, Copy)]
pub(crate) struct Mask {
    key: [u32; 2],
    stream: u32,
    /// Elements whose random word is below are dropped.
    threshold: u32,
    scale: f32,
}

/// Elements that are drawn at once: so many counters of Philox, each four words.
const LANES: usize = 16;
const DRAWN: usize = 4 * LANES;

impl Mask {
    /// A mask; those of other streams of one seed are independent of it.
    pub(crate) fn new(probability: f64, seed: u64, stream: u32) -> Self {
        Self {
            key: [seed as u32, (seed >> 32) as u32],
            stream,
            threshold: (probability * 2f64.powi(32)).round().min(f64::from(u32::MAX)) as u32,
            scale: (1.0 / (1.0 - probability)) as f32,
        }
    }

    /// Applies it to the elements from number `first` on, a multiple of 64.
    pub(crate) fn apply(self, first: usize, x: &mut [f32]) {
        debug_assert!(first.is_multiple_of(DRAWN), "blocks are whole draws");
        apply(self, first / DRAWN, x);
    }

    #[inline(always)]
    fn draw(self, block: u32) -> [[u32; LANES]; 4] {
        let mut counter = [[0u32; LANES]; 4];
        for (lane, word) in counter[0].iter_mut().enumerate() {
            *word = lane as u32;
        }
        counter[1] = [block; LANES];
        counter[2] = [self.stream; LANES];
        philox(counter, self.key)
    }
}

#[multiversion(targets("x86_64+avx512f+avx512dq", "x86_64+avx2"))]
fn apply(mask: Mask, first_draw: usize, x: &mut [f32]) {
    for (index, x) in x.chunks_mut(DRAWN).enumerate() {
        let words = mask.draw((first_draw + index) as u32);
        for (x, word) in x.iter_mut().zip(words.as_flattened()) {
            // What is not a number is not dropped either.
            *x *= if *word < mask.threshold { 0.0 } else { mask.scale };
        }
    }
}

/// Philox4x32-10 (Salmon et al., 2011) of 16 counters.
#[inline(always)]
fn philox(mut counter: [[u32; LANES]; 4], mut key: [u32; 2]) -> [[u32; LANES]; 4] {
    for _ in 0..10 {
        let [a, b, c, d] = counter;
        for lane in 0..LANES {
            let low = u64::from(a[lane]) * 0xd251_1f53;
            let high = u64::from(c[lane]) * 0xcd9e_8d57;
            counter[0][lane] = (high >> 32) as u32 ^ b[lane] ^ key[0];
            counter[1][lane] = high as u32;
            counter[2][lane] = (low >> 32) as u32 ^ d[lane] ^ key[1];
            counter[3][lane] = low as u32;
        }
        key = [key[0].wrapping_add(0x9e37_79b9), key[1].wrapping_add(0xbb67_ae85)];
    }
    counter
}

#[derive(Debug)]
pub(crate) struct DropoutBackward;

impl Backward<Flex, 1> for DropoutBackward {
    /// Probability and seed.
    type State = (f64, u64);

    fn backward(self, ops: Ops<Self::State, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let (probability, seed) = ops.state;
        unary::<Flex, _>(ops.parents, ops.node, gradients, |gradient| {
            drop(gradient, probability, seed)
        });
    }
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "what is exact is to be exact")]
mod tests {
    use burn::nn::DropoutConfig;
    use burn::tensor::Device;

    use super::*;
    use crate::extension::tests::seeded;

    #[test]
    fn the_generator_is_philox() {
        // The known answers of Random123's `kat_vectors`, philox4x32 10.
        let ones = u32::MAX;
        for (counter, key, expected) in [
            ([0; 4], [0; 2], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
            ([ones; 4], [ones; 2], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
            (
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0],
                [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
            ),
        ] {
            assert_eq!(
                philox(counter.map(|word| [word; LANES]), key),
                expected.map(|w| [w; LANES])
            );
        }
    }

    #[test]
    fn lane_block_and_stream_are_the_counter_and_the_seed_is_the_key() {
        let words = Mask::new(0.5, 0x0123_4567_89ab_cdef, 7).draw(3);
        for lane in 0..LANES {
            let counter = [lane as u32, 3, 7, 0].map(|word| [word; LANES]);
            let expected = philox(counter, [0x89ab_cdef, 0x0123_4567]);
            assert_eq!(words.map(|lanes| lanes[lane]), expected.map(|lanes| lanes[0]));
        }
    }

    #[test]
    fn the_gradient_is_that_of_the_same_mask() {
        let device = Device::flex().autodiff();
        let _guard = seeded(&device, 7);
        let x = Tensor::<2>::ones([301, 257], &device).require_grad();
        let y = dropout(&DropoutConfig::new(0.3).init(), x.clone());
        let gradient = x.grad(&(y.clone() * 2.0).sum().backward()).unwrap();
        let y: Vec<f32> = y.into_data().try_to_vec().unwrap();
        let gradient: Vec<f32> = gradient.into_data().try_to_vec().unwrap();
        assert!(y.iter().zip(&gradient).all(|(y, gradient)| 2.0 * y == *gradient));
        assert!(y.iter().all(|&y| y == 0.0 || y == (1.0f64 / 0.7) as f32));
        let dropped = y.iter().filter(|&&y| y == 0.0).count() as f64 / y.len() as f64;
        // Five standard deviations.
        assert!((dropped - 0.3).abs() < 5.0 * (0.21 / y.len() as f64).sqrt(), "{dropped}");
    }

    #[test]
    fn a_training_that_diverges_is_not_hidden() {
        let device = Device::flex();
        let _guard = seeded(&device, 3);
        let x = Tensor::<1>::full([100], f32::NAN, &device);
        let dropped: Vec<f32> = drop_elements(x, 0.5).into_data().try_to_vec().unwrap();
        assert!(dropped.iter().all(|x| x.is_nan()));
    }

    #[test]
    fn masks_differ_from_call_to_call_and_repeat_with_the_seed() {
        let device = Device::flex();
        let draw = || -> Vec<f32> {
            drop_elements(Tensor::<1>::ones([1000], &device), 0.5).into_data().try_to_vec().unwrap()
        };
        let _guard = seeded(&device, 1);
        let (first, second) = (draw(), draw());
        device.seed(1);
        assert_eq!((draw(), draw()), (first.clone(), second.clone()));
        assert_ne!(first, second);
    }
}
