use std::ops::Range;

use burn::data::dataloader::batcher::Batcher;
use burn::tensor::{Device, Int, Tensor, TensorData};

/// One encoded review.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// Which review, as an index into those the loader was made from.
    pub review: usize,
    /// Its tokens, `[CLS]` and `[SEP]` included.
    pub input_ids: Vec<u32>,
    /// Class index.
    pub label: usize,
}

/// A batch of reviews without padding: their tokens laid end to end.
///
/// # Shapes
/// - input_ids, position_ids, token_type_ids: `[sum of lengths]`
/// - labels: `[batch_size]`
#[derive(Clone, Debug)]
pub struct Batch {
    /// Tokens.
    pub input_ids: Tensor<1, Int>,
    /// Position of each token in its review.
    pub position_ids: Tensor<1, Int>,
    /// Segment of each token: all 0, for a review is one segment.
    pub token_type_ids: Tensor<1, Int>,
    /// Number of tokens of each review.
    pub lengths: Vec<usize>,
    /// Class indices.
    pub labels: Tensor<1, Int>,
    /// Which reviews, as [`Example::review`].
    pub reviews: Vec<usize>,
}

impl Batch {
    /// Divides the batch among `devices`: the first share lies on the first device and has the first
    /// reviews, and so on. Shares differ by at most one review. Where there are fewer reviews than
    /// devices, there are as many shares as reviews, and the last devices have none.
    pub fn shares(&self, devices: &[Device]) -> Vec<Self> {
        let mut shares = Vec::with_capacity(devices.len());
        let mut token = 0;
        for (device, own) in devices.iter().zip(division(self.reviews.len(), devices.len())) {
            let lengths = self.lengths[own.clone()].to_vec();
            let tokens = token..token + lengths.iter().sum::<usize>();
            let part = |tensor: &Tensor<1, Int>, range: &Range<usize>| {
                tensor.clone().slice([range.clone()]).to_device(device)
            };
            shares.push(Self {
                input_ids: part(&self.input_ids, &tokens),
                position_ids: part(&self.position_ids, &tokens),
                token_type_ids: part(&self.token_type_ids, &tokens),
                labels: part(&self.labels, &own),
                reviews: self.reviews[own].to_vec(),
                lengths,
            });
            token = tokens.end;
        }
        shares
    }
}

/// The reviews of the first device, of the second and so on; those after the last one here have none.
fn division(reviews: usize, devices: usize) -> impl Iterator<Item = Range<usize>> {
    let sharing = devices.min(reviews);
    (0..sharing).map(move |place| reviews * place / sharing..reviews * (place + 1) / sharing)
}

/// burn's `Batcher`: lays the tokens of reviews end to end.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReviewBatcher;

impl Batcher<Example, Batch> for ReviewBatcher {
    fn batch(&self, examples: Vec<Example>, device: &Device) -> Batch {
        let lengths: Vec<usize> = examples.iter().map(|example| example.input_ids.len()).collect();
        let tokens = examples.iter().flat_map(|example| &example.input_ids);
        Batch {
            input_ids: int_tensor(tokens.map(|&id| id as usize), device),
            position_ids: int_tensor(lengths.iter().flat_map(|&length| 0..length), device),
            token_type_ids: int_tensor(std::iter::repeat_n(0, lengths.iter().sum()), device),
            labels: int_tensor(examples.iter().map(|example| example.label), device),
            reviews: examples.iter().map(|example| example.review).collect(),
            lengths,
        }
    }
}

fn int_tensor(values: impl Iterator<Item = usize>, device: &Device) -> Tensor<1, Int> {
    let checked = |value| i32::try_from(value).expect("ids and classes are below 2^31");
    let values: Vec<i32> = values.map(checked).collect();
    let length = values.len();
    Tensor::from_data(TensorData::new(values, [length]), device)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ints(tensor: Tensor<1, Int>) -> Vec<i64> {
        tensor.into_data().iter::<i64>().collect()
    }

    #[test]
    fn reviews_are_laid_end_to_end() {
        let examples = vec![
            Example { review: 7, input_ids: vec![2, 10, 11, 3], label: 1 },
            Example { review: 3, input_ids: vec![2, 3], label: 0 },
        ];
        let batch = ReviewBatcher.batch(examples, &Device::flex());
        assert_eq!(ints(batch.input_ids), [2, 10, 11, 3, 2, 3]);
        assert_eq!(ints(batch.position_ids), [0, 1, 2, 3, 0, 1]);
        assert_eq!(ints(batch.token_type_ids), [0; 6]);
        assert_eq!((batch.lengths, batch.reviews), (vec![4, 2], vec![7, 3]));
        assert_eq!(ints(batch.labels), [1, 0]);
    }

    #[test]
    #[should_panic(expected = "below 2^31")]
    fn an_id_beyond_what_a_tensor_holds_is_refused() {
        let example = Example { review: 0, input_ids: vec![u32::MAX], label: 0 };
        ReviewBatcher.batch(vec![example], &Device::flex());
    }

    #[test]
    fn a_batch_is_divided_into_shares_that_are_the_batch() {
        let lengths = [4, 2, 7, 3, 5];
        let examples = lengths.iter().enumerate().map(|(review, &length)| Example {
            review: review * 3,
            input_ids: (0..length).map(|token| 100 * review as u32 + token).collect(),
            label: review % 2,
        });
        let device = Device::flex();
        let batch = ReviewBatcher.batch(examples.collect(), &device);
        let sizes = |devices| -> Vec<usize> {
            let shares = batch.shares(&vec![device.clone(); devices]);
            let joined = |tensor: fn(&Batch) -> &Tensor<1, Int>| -> Vec<i64> {
                shares.iter().flat_map(|share| ints(tensor(share).clone())).collect()
            };
            assert_eq!(joined(|share| &share.input_ids), ints(batch.input_ids.clone()));
            assert_eq!(joined(|share| &share.position_ids), ints(batch.position_ids.clone()));
            assert_eq!(joined(|share| &share.token_type_ids), ints(batch.token_type_ids.clone()));
            assert_eq!(joined(|share| &share.labels), ints(batch.labels.clone()));
            for share in &shares {
                assert_eq!(share.lengths.len(), share.reviews.len());
                assert_eq!(
                    ints(share.input_ids.clone()).len(),
                    share.lengths.iter().sum::<usize>()
                );
            }
            assert_eq!(
                shares.iter().flat_map(|s| s.reviews.clone()).collect::<Vec<_>>(),
                batch.reviews
            );
            shares.iter().map(|share| share.reviews.len()).collect()
        };
        assert_eq!(sizes(1), [5]);
        assert_eq!(sizes(2), [2, 3]);
        assert_eq!(sizes(4), [1, 1, 1, 2]);
        assert_eq!(sizes(8), [1; 5]);
    }

    #[test]
    fn the_devices_without_a_share_are_the_last() {
        for devices in 1..=9 {
            for reviews in 0..=40 {
                // A device's place is that of its share: none before the last share is empty.
                let ranges: Vec<Range<usize>> = division(reviews, devices).collect();
                assert_eq!(ranges.len(), devices.min(reviews), "{reviews} on {devices}");
                let least = (reviews / devices).max(1);
                let mut next = 0;
                for range in ranges {
                    assert_eq!(range.start, next, "{reviews} on {devices}");
                    assert!((least..=least + 1).contains(&range.len()), "{reviews} on {devices}");
                    next = range.end;
                }
                assert_eq!(next, reviews, "{reviews} on {devices}");
            }
        }
    }
}
