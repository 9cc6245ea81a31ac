use burn::data::dataloader::DataLoader;
use burn::tensor::{Device, Int, Tensor};
use nsmc_bert::SublayerSite;
use nsmc_data::ReviewLoader;
use nsmc_experiment::{FusionAttention, FusionPlace};
use nsmc_peft::{FusionWeights, PeftModel};

use crate::input::laid_out;
use crate::{TrainingError, among_the_threads};

/// What a model says of reviews.
#[derive(Clone, Debug, Default)]
pub struct Predicted {
    /// Each review's index and logits, in the order of the indices.
    pub logits: Vec<(usize, Vec<f32>)>,
    /// Where the model's fusions attended to, from the first layer up.
    pub attention: Vec<FusionAttention>,
}

/// The logits of every review of `loader`, whatever its order.
///
/// `device` must not record gradients; the model's dropout is then off. `progress` is told the number
/// of reviews done after each batch.
pub fn predict(
    model: &PeftModel,
    loader: &ReviewLoader,
    device: &Device,
    mut progress: impl FnMut(usize),
) -> Result<Predicted, TrainingError> {
    let loader = loader.to_device(device);
    let fused = model.adapters.active().is_some_and(|active| !active.fusions().is_empty());
    let mut predicted = Predicted::default();
    let mut tokens = 0;
    for batch in loader.iter() {
        let batch = batch?;
        let ((input, token_rows), model) = (laid_out(&batch), model.clone());
        let logits = if fused {
            let first_rows = input.sequences.first_rows();
            let forward = move || model.forward_with_fusion_weights(&input);
            let (logits, weights) = among_the_threads(device, forward);
            predicted.attend(weights, &first_rows, token_rows.as_ref())?;
            tokens += batch.lengths.iter().sum::<usize>();
            logits
        } else {
            among_the_threads(device, move || model.forward(&input))
        };
        let [_, num_labels] = logits.dims();
        let logits: Vec<f32> = logits.try_into_vec_as()?;
        predicted.logits.extend(
            batch.reviews.iter().copied().zip(logits.chunks(num_labels).map(<[f32]>::to_vec)),
        );
        progress(predicted.logits.len());
    }
    predicted.logits.sort_unstable_by_key(|(review, _)| *review);
    let reviews = predicted.logits.len();
    for attention in &mut predicted.attention {
        attention.mean.iter_mut().for_each(|sum| *sum /= tokens as f64);
        attention.mean_first_token.iter_mut().for_each(|sum| *sum /= reviews as f64);
    }
    Ok(predicted)
}

impl Predicted {
    /// Adds a batch's weights to the sums: those of `token_rows`, or of all rows if there are no
    /// others.
    fn attend(
        &mut self,
        weights: Vec<FusionWeights>,
        first_rows: &Tensor<1, Int>,
        token_rows: Option<&Tensor<1, Int>>,
    ) -> Result<(), TrainingError> {
        let sums = |weights: Tensor<2>| -> Result<Vec<f64>, TrainingError> {
            let sums = weights.sum_dim(0).try_into_vec_as::<f32>()?;
            Ok(sums.into_iter().map(f64::from).collect())
        };
        let add = |sums: &mut Vec<f64>, more: Vec<f64>| {
            sums.resize(more.len(), 0.0);
            sums.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
        };
        for (index, FusionWeights { fusion, site, weights }) in weights.into_iter().enumerate() {
            if index == self.attention.len() {
                let (layer, place) = match site {
                    SublayerSite::Attention(layer) => (layer, FusionPlace::Attention),
                    SublayerSite::FeedForward(layer) => (layer, FusionPlace::Output),
                };
                self.attention.push(FusionAttention {
                    adapters: fusion.split(',').map(str::to_owned).collect(),
                    layer,
                    place,
                    mean: Vec::new(),
                    mean_first_token: Vec::new(),
                });
            }
            let attention = &mut self.attention[index];
            add(
                &mut attention.mean_first_token,
                sums(weights.clone().select(0, first_rows.clone()))?,
            );
            let of_tokens = match token_rows {
                Some(rows) => weights.select(0, rows.clone()),
                None => weights,
            };
            add(&mut attention.mean, sums(of_tokens)?);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two sequences of three and one tokens, padded to four rows each, as on a GPU.
    #[test]
    fn padding_is_no_token_that_a_fusion_attends_from() {
        let device = Device::flex();
        let rows = |rows: &[i32]| Tensor::<1, Int>::from_ints(rows, &device);
        let (first_rows, token_rows) = (rows(&[0, 4]), rows(&[0, 1, 2, 4]));
        let weights = |firsts: &[f32]| {
            let pairs: Vec<f32> = firsts.iter().flat_map(|&first| [first, 1.0 - first]).collect();
            vec![FusionWeights {
                fusion: "ko,nsmc".into(),
                site: SublayerSite::FeedForward(2),
                weights: Tensor::<1>::from_floats(&*pairs, &device).reshape([firsts.len(), 2]),
            }]
        };
        let mut padded = Predicted::default();
        let with_padding = weights(&[0.25, 0.5, 0.75, 0.25, 1.0, 1.0, 1.0, 1.0]);
        padded.attend(with_padding, &first_rows, Some(&token_rows)).unwrap();
        let mut unpadded = Predicted::default();
        unpadded.attend(weights(&[0.25, 0.5, 0.75, 1.0]), &rows(&[0, 3]), None).unwrap();
        for predicted in [&padded, &unpadded] {
            let [attention] = predicted.attention.as_slice() else { panic!("one fusion") };
            assert_eq!(attention.mean, [2.5, 1.5], "of four tokens");
            assert_eq!(attention.mean_first_token, [1.25, 0.75]);
            assert_eq!((attention.layer, attention.place), (2, FusionPlace::Output));
        }
    }
}
