use std::sync::{Arc, Mutex, PoisonError};

use super::packing::{Packing, Plan};
use super::{MaskingVocabulary, generator, mask};
use crate::{DataError, EncodedReviews};

/// A batch of masked reviews without padding: their tokens laid end to end.
///
/// # Shapes
/// - input_ids: `[sum of lengths]`
/// - lengths, reviews: `[batch_size]`
/// - masked_rows, masked_labels: `[masked]`, never empty
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PretrainingBatch {
    /// Tokens, some of them hidden.
    pub input_ids: Vec<u32>,
    /// Number of tokens of each review.
    pub lengths: Vec<usize>,
    /// Which reviews, as indices into those the loader was made from.
    pub reviews: Vec<usize>,
    /// Where tokens are to be predicted, as ascending indices into `input_ids`.
    pub masked_rows: Vec<u32>,
    /// The tokens that stood there.
    pub masked_labels: Vec<u32>,
}

/// Loads batches of masked reviews. A batch and its masks depend on the epoch, on its index and on what
/// the loader was made from, and on nothing else.
///
/// The order of the epoch that was asked for last is kept, so that it is not made for every batch.
pub struct PretrainingLoader {
    ids: Arc<[String]>,
    encoded: Arc<EncodedReviews>,
    indices: Vec<usize>,
    vocabulary: MaskingVocabulary,
    mask_fraction: f64,
    packing: Packing,
    plan: Mutex<Option<(usize, Arc<Plan>)>>,
}

impl PretrainingLoader {
    /// A loader over the reviews at `indices`; `ids` and `encoded` are those of all reviews.
    ///
    /// A review without a token that can be masked is left out.
    ///
    /// # Errors
    ///
    /// [`DataError::Budget`] where a review has more tokens than a batch may have.
    ///
    /// # Panics
    ///
    /// If `encoded` has not one entry per id.
    pub fn new(
        ids: Arc<[String]>,
        encoded: Arc<EncodedReviews>,
        mut indices: Vec<usize>,
        vocabulary: MaskingVocabulary,
        mask_fraction: f64,
        packing: Packing,
    ) -> Result<Self, DataError> {
        assert_eq!(ids.len(), encoded.len(), "one encoding per review");
        indices
            .retain(|&review| encoded.tokens(review).iter().any(|&id| vocabulary.is_maskable(id)));
        let budget = packing.tokens_per_batch;
        if let Some(&review) = indices.iter().find(|&&review| encoded.tokens(review).len() > budget)
        {
            let tokens = encoded.tokens(review).len();
            return Err(DataError::Budget { id: ids[review].clone(), tokens, budget });
        }
        let plan = Mutex::new(None);
        Ok(Self { ids, encoded, indices, vocabulary, mask_fraction, packing, plan })
    }

    /// Reviews of an epoch.
    pub fn num_reviews(&self) -> usize {
        self.indices.len()
    }

    /// Tokens of an epoch.
    pub fn num_tokens(&self) -> usize {
        self.indices.iter().map(|&review| self.encoded.tokens(review).len()).sum()
    }

    /// The ids of reviews, given as indices into those the loader was made from.
    pub fn ids(&self, reviews: &[usize]) -> Vec<String> {
        reviews.iter().map(|&review| self.ids[review].clone()).collect()
    }

    /// Number of batches of an epoch, which is counted from 0; not the same for every epoch.
    pub fn num_batches(&self, epoch: usize) -> usize {
        self.plan(epoch).num_batches()
    }

    /// A batch of an epoch, both from 0.
    ///
    /// # Panics
    ///
    /// If the epoch has no such batch.
    pub fn batch(&self, epoch: usize, index: usize) -> PretrainingBatch {
        let plan = self.plan(epoch);
        assert!(index < plan.num_batches(), "batch {index} of {}", plan.num_batches());
        let mut batch = PretrainingBatch {
            input_ids: Vec::with_capacity(self.packing.tokens_per_batch),
            lengths: Vec::new(),
            reviews: plan.batch(index).iter().map(|&place| self.indices[place]).collect(),
            masked_rows: Vec::new(),
            masked_labels: Vec::new(),
        };
        for &review in &batch.reviews {
            let tokens = self.encoded.tokens(review);
            let starts = self.vocabulary.starts(tokens);
            let mut rng = generator("mask", self.packing.seed, epoch, &self.ids[review]);
            let masked = mask(tokens, &starts, &self.vocabulary, self.mask_fraction, &mut rng);
            let first = batch.input_ids.len() as u32;
            batch.masked_rows.extend(masked.positions.iter().map(|position| first + position));
            batch.masked_labels.extend(masked.labels);
            batch.input_ids.extend(masked.input_ids);
            batch.lengths.push(tokens.len());
        }
        batch
    }

    /// Hashing and sorting the ids takes longer than filling a batch: it is done once an epoch.
    fn plan(&self, epoch: usize) -> Arc<Plan> {
        // What is in the lock is whole at any time.
        let mut held = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, plan)) = held.as_ref()
            && *of == epoch
        {
            return Arc::clone(plan);
        }
        let ids: Vec<&str> = self.indices.iter().map(|&review| self.ids[review].as_str()).collect();
        let lengths: Vec<usize> =
            self.indices.iter().map(|&review| self.encoded.tokens(review).len()).collect();
        let plan = Arc::new(self.packing.plan(&ids, &lengths, epoch));
        *held = Some((epoch, Arc::clone(&plan)));
        plan
    }
}
