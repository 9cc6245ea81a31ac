use std::sync::Arc;

use burn::data::dataloader::batcher::Batcher;
use burn::data::dataloader::{DataLoader, DataLoaderIterator, Progress};
use burn::data::dataset::DatasetError;
use burn::tensor::Device;

use crate::{Batch, EncodedReviews, Example, Review, ReviewBatcher, epoch_order};

/// The order in which a loader visits its reviews.
#[derive(Clone, Debug)]
pub enum Order {
    /// Longest first: batches of like lengths, for evaluation. Equal lengths keep their order.
    ByLength,
    /// A permutation that is a pure function of the seed and the epoch.
    Shuffled {
        /// The run's seed.
        seed: u64,
    },
}

/// Loads batches of encoded reviews: burn's `DataLoader`.
///
/// burn's own loader draws a new permutation each time it is iterated; this one's order depends on
/// nothing but seed and epoch, so that [`Self::batches`] can enter an epoch at any batch. The trait's
/// `iter` visits epoch 0.
#[derive(Clone)]
pub struct ReviewLoader {
    encoded: Arc<EncodedReviews>,
    reviews: Arc<Vec<Review>>,
    indices: Vec<usize>,
    batch_size: usize,
    order: Order,
    device: Device,
}

impl ReviewLoader {
    /// A loader over the reviews at `indices`; `encoded` holds the tokens of all `reviews`.
    ///
    /// # Panics
    ///
    /// If `batch_size` is 0 or `encoded` has not one entry per review.
    pub fn new(
        reviews: Arc<Vec<Review>>,
        encoded: Arc<EncodedReviews>,
        indices: Vec<usize>,
        batch_size: usize,
        order: Order,
        device: Device,
    ) -> Self {
        assert!(batch_size > 0, "a batch has at least one review");
        assert_eq!(reviews.len(), encoded.len(), "one encoding per review");
        Self { encoded, reviews, indices, batch_size, order, device }
    }

    /// The same reviews in the same order, as batches on `device`.
    #[must_use]
    pub fn on(&self, device: &Device) -> Self {
        Self { device: device.clone(), ..self.clone() }
    }

    /// The batches of epoch `epoch` from batch `first` on, both from 0; none where the epoch has no
    /// such batch. [`Order::ByLength`] is the same in every epoch.
    pub fn batches(&self, epoch: usize, first: usize) -> impl DataLoaderIterator<Batch> + '_ {
        let next = (first * self.batch_size).min(self.indices.len());
        Batches { loader: self, order: self.ordered(epoch), next }
    }

    /// Number of batches of one epoch.
    pub fn num_batches(&self) -> usize {
        self.indices.len().div_ceil(self.batch_size)
    }

    /// Number of tokens of one epoch.
    pub fn num_tokens(&self) -> usize {
        self.indices.iter().map(|&review| self.encoded.tokens(review).len()).sum()
    }

    /// The ids of reviews, given as indices into those the loader was made from.
    pub fn ids(&self, reviews: &[usize]) -> Vec<String> {
        reviews.iter().map(|&review| self.reviews[review].id.clone()).collect()
    }

    fn ordered(&self, epoch: usize) -> Vec<usize> {
        match self.order {
            Order::ByLength => {
                let mut indices = self.indices.clone();
                indices.sort_by_key(|&review| std::cmp::Reverse(self.encoded.tokens(review).len()));
                indices
            }
            Order::Shuffled { seed } => {
                let ids = self.indices.iter().map(|&review| self.reviews[review].id.as_str());
                epoch_order(ids, seed, epoch).into_iter().map(|at| self.indices[at]).collect()
            }
        }
    }
}

impl DataLoader<Batch> for ReviewLoader {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<Batch> + 'a> {
        Box::new(self.batches(0, 0))
    }

    fn num_items(&self) -> usize {
        self.indices.len()
    }

    fn to_device(&self, device: &Device) -> Arc<dyn DataLoader<Batch>> {
        Arc::new(self.on(device))
    }

    fn slice(&self, start: usize, end: usize) -> Arc<dyn DataLoader<Batch>> {
        Arc::new(Self { indices: self.indices[start..end].to_vec(), ..self.clone() })
    }
}

struct Batches<'a> {
    loader: &'a ReviewLoader,
    order: Vec<usize>,
    next: usize,
}

impl Iterator for Batches<'_> {
    type Item = Result<Batch, DatasetError>;

    fn next(&mut self) -> Option<Self::Item> {
        let end = (self.next + self.loader.batch_size).min(self.order.len());
        let reviews = self.order.get(self.next..end).filter(|reviews| !reviews.is_empty())?;
        let examples = reviews.iter().map(|&review| Example {
            review,
            input_ids: self.loader.encoded.tokens(review).to_vec(),
            label: self.loader.reviews[review].label,
        });
        let batch = ReviewBatcher.batch(examples.collect(), &self.loader.device);
        self.next = end;
        Some(Ok(batch))
    }
}

impl DataLoaderIterator<Batch> for Batches<'_> {
    fn progress(&self) -> Progress {
        Progress::new(self.next, self.order.len(), Some("reviews".into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BertTokenizer;

    fn loader(order: Order) -> ReviewLoader {
        let reviews: Vec<Review> = (0..23)
            .map(|id: usize| Review {
                id: (id * 31).to_string(),
                document: "영화 ".repeat(id * 7 % 11),
                label: id % 2,
            })
            .collect();
        let tokenizer = BertTokenizer::train(&["영화 영화"], 40).unwrap();
        let encoded = EncodedReviews::encode(&reviews, &tokenizer, 64).unwrap();
        let indices = (0..reviews.len()).filter(|index| index % 5 != 0).collect();
        ReviewLoader::new(Arc::new(reviews), Arc::new(encoded), indices, 4, order, Device::flex())
    }

    fn visited(batches: impl DataLoaderIterator<Batch>) -> Vec<Vec<usize>> {
        batches.map(|batch| batch.unwrap().reviews).collect()
    }

    #[test]
    fn every_review_is_visited_once_an_epoch_in_another_order_each() {
        let loader = loader(Order::Shuffled { seed: 9 });
        let first = visited(loader.batches(0, 0));
        assert_eq!(first.iter().map(Vec::len).collect::<Vec<_>>(), [4, 4, 4, 4, 2]);
        assert_eq!(visited(loader.batches(0, 0)), first);
        let second = visited(loader.batches(1, 0));
        assert_ne!(first, second);
        for epoch in [first, second] {
            let mut all = epoch.concat();
            all.sort_unstable();
            assert_eq!(all, loader.indices);
        }
    }

    #[test]
    fn an_epoch_can_be_entered_at_any_batch() {
        let loader = loader(Order::Shuffled { seed: 9 });
        let whole = visited(loader.batches(3, 0));
        for first in 0..=whole.len() {
            assert_eq!(visited(loader.batches(3, first)), whole[first..]);
        }
        assert_eq!(visited(loader.batches(3, 6)), [[0; 0]; 0]);
        let mut batches = loader.batches(3, 2);
        batches.next();
        let progress = batches.progress();
        assert_eq!((progress.items_processed, progress.items_total), (12, 18));
    }

    #[test]
    fn what_a_loader_visits_does_not_depend_on_who_else_uses_a_clone_of_it() {
        for order in [Order::ByLength, Order::Shuffled { seed: 9 }] {
            let loader = loader(order);
            let clone = loader.clone();
            let elsewhere = loader.to_device(&Device::flex());
            let slice = loader.slice(0, loader.num_items());
            let whole = visited(loader.batches(0, 0));
            let mut entered = clone.batches(2, 3);
            entered.next();
            assert_eq!(visited(loader.batches(0, 0)), whole);
            for other in [&loader as &dyn DataLoader<Batch>, &clone, &*elsewhere, &*slice] {
                let reviews: Vec<_> = other.iter().map(|batch| batch.unwrap().reviews).collect();
                assert_eq!(reviews, whole);
            }
        }
    }

    #[test]
    fn evaluation_visits_the_longest_first() {
        let loader = loader(Order::ByLength);
        let lengths: Vec<usize> = loader.iter().flat_map(|batch| batch.unwrap().lengths).collect();
        assert!(lengths.windows(2).all(|pair| pair[0] >= pair[1]), "{lengths:?}");
        assert_eq!(lengths.iter().sum::<usize>(), loader.num_tokens());
    }
}
