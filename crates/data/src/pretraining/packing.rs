use std::ops::Range;

use rand::seq::SliceRandom;

use super::generator;
use crate::epoch_order;

/// How reviews are put into batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packing {
    /// Decides the order.
    pub seed: u64,
    /// The most tokens of a batch.
    pub tokens_per_batch: usize,
    /// How many batches' reviews are sorted by length together before they are cut into batches: those
    /// of a batch are then alike, and attention pads little. 0 leaves them as they were shuffled.
    pub window: usize,
}

/// The batches of an epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// Every review once, as indices into those that were packed.
    order: Vec<usize>,
    /// Which places of the order make a batch.
    batches: Vec<Range<usize>>,
}

impl Plan {
    pub(super) fn num_batches(&self) -> usize {
        self.batches.len()
    }

    /// The reviews of a batch.
    pub(super) fn batch(&self, index: usize) -> &[usize] {
        &self.order[self.batches[index].clone()]
    }
}

impl Packing {
    /// Packs reviews of the given ids and lengths: a pure function of them, the seed and the epoch.
    pub(super) fn plan(&self, ids: &[&str], lengths: &[usize], epoch: usize) -> Plan {
        let mut order = epoch_order(ids.iter().copied(), self.seed, epoch);
        if self.window > 0 {
            let tokens = self.tokens_per_batch.saturating_mul(self.window);
            for (index, window) in cut(&order, lengths, tokens).into_iter().enumerate() {
                let window = &mut order[window];
                window.sort_by_key(|&review| lengths[review]);
                // Long reviews meet long ones where two windows share a batch: a few of them among
                // hundreds of short ones would pad each of those.
                if index % 2 == 1 {
                    window.reverse();
                }
            }
        }
        // The whole order is cut, not each window, so that one batch of the epoch is partly filled.
        let mut batches = cut(&order, lengths, self.tokens_per_batch);
        batches.shuffle(&mut generator("batches", self.seed, epoch, ""));
        Plan { order, batches }
    }
}

/// Cuts an order wherever the next review would bring more than `budget` tokens.
fn cut(order: &[usize], lengths: &[usize], budget: usize) -> Vec<Range<usize>> {
    let mut parts: Vec<Range<usize>> = Vec::new();
    let mut tokens = 0;
    for (place, &review) in order.iter().enumerate() {
        match parts.last_mut() {
            Some(part) if tokens + lengths[review] <= budget => part.end += 1,
            _ => {
                parts.push(place..place + 1);
                tokens = 0;
            }
        }
        tokens += lengths[review];
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUDGET: usize = 100;

    fn packing(seed: u64, window: usize) -> Packing {
        Packing { seed, tokens_per_batch: BUDGET, window }
    }

    /// 2,000 ids, and lengths of 3 to 42.
    fn reviews() -> (Vec<String>, Vec<usize>) {
        (0..2_000).map(|id: usize| ((id * 31).to_string(), 3 + id * id % 40)).unzip()
    }

    fn plan(packing: Packing, epoch: usize) -> Vec<Vec<usize>> {
        let (ids, lengths) = reviews();
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        let plan = packing.plan(&ids, &lengths, epoch);
        (0..plan.num_batches()).map(|index| plan.batch(index).to_vec()).collect()
    }

    #[test]
    fn every_review_is_in_one_batch_and_no_batch_is_over_its_budget() {
        let (_, lengths) = reviews();
        let total: usize = lengths.iter().sum();
        for window in [0, 1, 16, 10_000] {
            let batches = plan(packing(1, window), 3);
            let mut all = batches.concat();
            all.sort_unstable();
            assert_eq!(all, (0..2_000).collect::<Vec<_>>());
            let tokens: Vec<usize> =
                batches.iter().map(|batch| batch.iter().map(|&r| lengths[r]).sum()).collect();
            assert!(tokens.iter().all(|&tokens| tokens <= BUDGET));
            // The last one aside, each has room for less than the longest review.
            assert!(tokens.iter().filter(|&&tokens| tokens <= BUDGET - 42).count() <= 1);
            assert!(batches.len() < total * 13 / 10 / BUDGET, "{} batches", batches.len());
        }
    }

    #[test]
    fn an_epoch_is_a_function_of_seed_and_number() {
        // Written down, so that a training can be resumed by a later version.
        assert_eq!(plan(packing(1, 16), 0)[0], [1077, 223, 916, 1956, 1684, 1024]);
        for window in [0, 16] {
            let batches = plan(packing(1, window), 0);
            assert_eq!(plan(packing(1, window), 0), batches);
            assert_ne!(plan(packing(1, window), 1), batches);
            assert_ne!(plan(packing(2, window), 0), batches);
            // Not only the batches' order: other reviews meet.
            let mut sets = [batches, plan(packing(1, window), 1)].map(|mut batches| {
                for batch in &mut batches {
                    batch.sort_unstable();
                }
                batches.sort();
                batches
            });
            let [first, second] = &mut sets;
            first.retain(|batch| second.contains(batch));
            assert!(first.len() < 3, "{first:?}");
        }
    }

    #[test]
    fn a_window_makes_batches_of_like_lengths_in_no_order_of_length() {
        let (_, lengths) = reviews();
        let padding = |window| -> usize {
            let padded = |batch: Vec<usize>| {
                let longest = batch.iter().map(|&review| lengths[review]).max().unwrap();
                batch.iter().map(|&review| longest - lengths[review]).sum::<usize>()
            };
            plan(packing(1, window), 0).into_iter().map(padded).sum()
        };
        assert!(padding(32) * 10 < padding(0), "{} and {}", padding(32), padding(0));
        // Where two windows meet, too.
        for batch in plan(packing(1, 32), 0) {
            let lengths = || batch.iter().map(|&review| lengths[review]);
            let (shortest, longest) = (lengths().min().unwrap(), lengths().max().unwrap());
            assert!(longest - shortest < 20, "{shortest} beside {longest}");
        }

        let longest: Vec<usize> = plan(packing(1, 10_000), 0)
            .iter()
            .map(|batch| batch.iter().map(|&review| lengths[review]).max().unwrap())
            .collect();
        let rising = longest.windows(2).filter(|pair| pair[0] <= pair[1]).count();
        let share = rising as f64 / longest.len() as f64;
        assert!((0.4..0.65).contains(&share), "{share} of the batches are longer than the last");
    }

    #[test]
    fn a_review_over_the_budget_is_alone() {
        assert_eq!(cut(&[2, 0, 1, 3], &[5, 20, 5, 1], 10), [0..2, 2..3, 3..4]);
        assert!(cut(&[], &[], 10).is_empty());
    }
}
