use burn::tensor::{Device, Int, Tensor};
use nsmc_bert::SublayerSite;
use nsmc_data::{Batch, ReviewLoader};
use nsmc_experiment::{FusionAttention, FusionPlace};
use nsmc_peft::{FusionWeights, PeftModel};

use crate::TrainingError;
use crate::input::laid_out;
use crate::threads::in_parallel;

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
/// `device` must not record gradients; the model's dropout is then off. On a CPU a few batches are computed
/// at once, with the same results. `progress` is told the number of reviews done after each batch.
pub fn predict(
    model: &PeftModel,
    loader: &ReviewLoader,
    device: &Device,
    mut progress: impl FnMut(usize),
) -> Result<Predicted, TrainingError> {
    let count = loader.num_batches();
    let loader = loader.on(device);
    let fused = model.adapters.active().is_some_and(|active| !active.fusions().is_empty());
    let batches = loader.batches(0, 0).map(|batch| Ok(batch?));
    let mut predicted = Predicted::default();
    let mut tokens = 0;
    in_parallel(
        device,
        count,
        batches,
        |batch| PredictedBatch::new(model, &batch, fused),
        |batch| {
            tokens += batch.tokens;
            predicted.add(batch);
            progress(predicted.logits.len());
            Ok(())
        },
    )?;
    predicted.logits.sort_unstable_by_key(|(review, _)| *review);
    let reviews = predicted.logits.len();
    for attention in &mut predicted.attention {
        attention.mean.iter_mut().for_each(|sum| *sum /= tokens as f64);
        attention.mean_first_token.iter_mut().for_each(|sum| *sum /= reviews as f64);
    }
    Ok(predicted)
}

/// What a model says of the reviews of a batch; of where its fusions attended to, sums over them.
struct PredictedBatch {
    logits: Vec<(usize, Vec<f32>)>,
    attention: Vec<FusionAttention>,
    tokens: usize,
}

impl PredictedBatch {
    fn new(model: &PeftModel, batch: &Batch, fused: bool) -> Result<Self, TrainingError> {
        let (input, token_rows) = laid_out(batch);
        let (logits, weights) = if fused {
            model.forward_with_fusion_weights(&input)
        } else {
            (model.forward(&input), Vec::new())
        };
        let first_rows = input.sequences.first_rows();
        let sum = |weights| attention_sums(weights, &first_rows, token_rows.as_ref());
        let attention = weights.into_iter().map(sum).collect::<Result<_, _>>()?;
        let [_, num_labels] = logits.dims();
        let logits: Vec<f32> = logits.try_into_vec_as()?;
        let logits = logits.chunks(num_labels).map(<[f32]>::to_vec);
        Ok(Self {
            logits: batch.reviews.iter().copied().zip(logits).collect(),
            attention,
            tokens: batch.lengths.iter().sum(),
        })
    }
}

/// A fusion's weights, summed over the tokens of a batch: over `token_rows`, or all rows if there is no
/// padding between them.
fn attention_sums(
    FusionWeights { fusion, site, weights }: FusionWeights,
    first_rows: &Tensor<1, Int>,
    token_rows: Option<&Tensor<1, Int>>,
) -> Result<FusionAttention, TrainingError> {
    let sums = |weights: Tensor<2>| -> Result<Vec<f64>, TrainingError> {
        let sums = weights.sum_dim(0).try_into_vec_as::<f32>()?;
        Ok(sums.into_iter().map(f64::from).collect())
    };
    let (layer, place) = match site {
        SublayerSite::Attention(layer) => (layer, FusionPlace::Attention),
        SublayerSite::FeedForward(layer) => (layer, FusionPlace::Output),
    };
    Ok(FusionAttention {
        adapters: fusion.split(',').map(str::to_owned).collect(),
        layer,
        place,
        mean_first_token: sums(weights.clone().select(0, first_rows.clone()))?,
        mean: sums(match token_rows {
            Some(rows) => weights.select(0, rows.clone()),
            None => weights,
        })?,
    })
}

impl Predicted {
    fn add(&mut self, batch: PredictedBatch) {
        self.logits.extend(batch.logits);
        if self.attention.is_empty() {
            self.attention = batch.attention;
            return;
        }
        let add = |sums: &mut [f64], more: &[f64]| {
            sums.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
        };
        for (sums, more) in self.attention.iter_mut().zip(&batch.attention) {
            add(&mut sums.mean, &more.mean);
            add(&mut sums.mean_first_token, &more.mean_first_token);
        }
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
        let sums = |firsts: &[f32], first_rows: &[i32], token_rows: Option<&[i32]>| {
            let pairs: Vec<f32> = firsts.iter().flat_map(|&first| [first, 1.0 - first]).collect();
            let weights = FusionWeights {
                fusion: "ko,nsmc".into(),
                site: SublayerSite::FeedForward(2),
                weights: Tensor::<1>::from_floats(&*pairs, &device).reshape([firsts.len(), 2]),
            };
            let token_rows = token_rows.map(rows);
            attention_sums(weights, &rows(first_rows), token_rows.as_ref()).unwrap()
        };
        let with_padding = [0.25, 0.5, 0.75, 0.25, 1.0, 1.0, 1.0, 1.0];
        for attention in [
            sums(&with_padding, &[0, 4], Some(&[0, 1, 2, 4])),
            sums(&[0.25, 0.5, 0.75, 1.0], &[0, 3], None),
        ] {
            assert_eq!(attention.mean, [2.5, 1.5], "of four tokens");
            assert_eq!(attention.mean_first_token, [1.25, 0.75]);
            assert_eq!((attention.layer, attention.place), (2, FusionPlace::Output));
        }
    }
}
