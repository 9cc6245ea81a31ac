use sha2::{Digest, Sha256};

use crate::{DataError, Review};

/// Which reviews are trained on and which are held out, as ascending indices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// Trained on.
    pub train: Vec<usize>,
    /// Held out to choose by.
    pub validation: Vec<usize>,
}

/// Takes `size` reviews of a training file and holds out a share of the file.
///
/// The validation split is the same for every `size`: `validation_fraction` of the whole file. Of the
/// rest, `size · (1 - validation_fraction)` reviews are trained on, so that `size` counts the
/// reviews a practitioner would have had to split. Both choices are stratified by class, and a smaller
/// training split is a part of a larger one.
///
/// The choices depend on the reviews' ids and classes alone, not on random numbers. The order of the
/// rows has a part in them only where ids are made of the texts: equal texts are numbered in it.
pub fn split(
    reviews: &[Review],
    size: Option<usize>,
    validation_fraction: f64,
) -> Result<Split, DataError> {
    let size = check_size("training reviews", reviews, size)?;
    let all: Vec<usize> = (0..reviews.len()).collect();
    let share = |of: usize| (of as f64 * validation_fraction).round() as usize;
    let mut order = stratified_order(reviews, &all, "validation");
    let mut pool = order.split_off(share(reviews.len()));
    let mut validation = order;
    pool.sort_unstable();
    let mut train = stratified_order(reviews, &pool, "subset");
    train.truncate(size - share(size));
    train.sort_unstable();
    validation.sort_unstable();
    Ok(Split { train, validation })
}

/// Takes `size` reviews of a file, chosen as [`split`] chooses; returns ascending indices.
pub fn subset(reviews: &[Review], size: Option<usize>) -> Result<Vec<usize>, DataError> {
    let size = check_size("test reviews", reviews, size)?;
    let all: Vec<usize> = (0..reviews.len()).collect();
    let mut chosen = stratified_order(reviews, &all, "subset");
    chosen.truncate(size);
    chosen.sort_unstable();
    Ok(chosen)
}

/// The order in which an epoch visits reviews: a permutation that is a pure function of seed, epoch
/// (from 0) and ids.
pub fn epoch_order<'a>(
    ids: impl IntoIterator<Item = &'a str>,
    seed: u64,
    epoch: usize,
) -> Vec<usize> {
    let salt = format!("order {seed} {epoch}");
    let mut keyed: Vec<(u64, &str, usize)> =
        ids.into_iter().enumerate().map(|(index, id)| (hash(&salt, id), id, index)).collect();
    keyed.sort_unstable();
    keyed.into_iter().map(|(.., index)| index).collect()
}

/// The first eight bytes of sha256 over `salt` and `text`.
pub(crate) fn hash(salt: &str, text: &str) -> u64 {
    let digest = Sha256::new().chain_update(salt).chain_update([0]).chain_update(text).finalize();
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&digest[..8]);
    u64::from_be_bytes(bytes)
}

/// Lowercase hex digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Orders `indices` so that every prefix holds each class in its share: of two classes to half a
/// review, of many to a few reviews.
///
/// Within a class the order is that of a hash of the ids; the classes are interleaved evenly.
fn stratified_order(reviews: &[Review], indices: &[usize], salt: &str) -> Vec<usize> {
    let classes = reviews.iter().map(|review| review.label + 1).max().unwrap_or(0);
    let mut by_class: Vec<Vec<(u64, &str, usize)>> = vec![Vec::new(); classes];
    for &index in indices {
        let review = &reviews[index];
        by_class[review.label].push((hash(salt, &review.id), &review.id, index));
    }
    let mut keyed: Vec<(f64, usize, usize)> = Vec::with_capacity(indices.len());
    for (class, members) in by_class.iter_mut().enumerate() {
        members.sort_unstable();
        let size = members.len() as f64;
        let places = members.iter().enumerate();
        keyed.extend(
            places.map(|(place, &(.., index))| ((place as f64 + 0.5) / size, class, index)),
        );
    }
    keyed.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    keyed.into_iter().map(|(.., index)| index).collect()
}

fn check_size(
    what: &'static str,
    reviews: &[Review],
    size: Option<usize>,
) -> Result<usize, DataError> {
    let available = reviews.len();
    match size {
        None => Ok(available),
        Some(0) => Err(DataError::NoSize { what }),
        Some(wanted) if wanted <= available => Ok(wanted),
        Some(wanted) => Err(DataError::Size { what, available, wanted }),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// 1,000 reviews, 37 % of class 1, in the order of their ids.
    fn reviews() -> Vec<Review> {
        (0..1000)
            .map(|id: usize| Review {
                id: (id * 7919).to_string(),
                document: String::new(),
                label: usize::from(id % 100 < 37),
            })
            .collect()
    }

    fn ids(reviews: &[Review], indices: &[usize]) -> HashSet<String> {
        indices.iter().map(|&index| reviews[index].id.clone()).collect()
    }

    fn positive(reviews: &[Review], indices: &[usize]) -> usize {
        indices.iter().filter(|&&index| reviews[index].label == 1).count()
    }

    #[test]
    fn a_split_is_stratified_disjoint_and_whole() {
        let reviews = reviews();
        let Split { train, validation } = split(&reviews, None, 0.1).unwrap();
        assert_eq!((train.len(), validation.len()), (900, 100));
        assert_eq!(positive(&reviews, &validation), 37);
        let all: HashSet<usize> = train.iter().chain(&validation).copied().collect();
        assert_eq!(all.len(), 1000);
        assert!(split(&reviews, None, 0.0).unwrap().validation.is_empty());
    }

    #[test]
    fn smaller_sizes_are_nested_and_share_the_validation_split() {
        let reviews = reviews();
        let sizes = [50, 333, 500, 1000];
        let splits: Vec<Split> =
            sizes.iter().map(|&size| split(&reviews, Some(size), 0.1).unwrap()).collect();
        for (pair, &size) in splits.windows(2).zip(&sizes) {
            assert_eq!(pair[0].validation, pair[1].validation);
            assert!(ids(&reviews, &pair[0].train).is_subset(&ids(&reviews, &pair[1].train)));
            let trained = pair[0].train.len();
            assert_eq!(trained, size - (size as f64 * 0.1).round() as usize);
            let share = positive(&reviews, &pair[0].train) as f64;
            assert!((share - trained as f64 * 0.37).abs() <= 1.0, "{share} of {trained}");
        }
    }

    #[test]
    fn a_choice_does_not_depend_on_the_order_of_the_rows() {
        let reviews = reviews();
        let mut shuffled = reviews.clone();
        shuffled.reverse();
        shuffled.rotate_left(123);
        let (a, b) =
            (split(&reviews, Some(300), 0.2).unwrap(), split(&shuffled, Some(300), 0.2).unwrap());
        assert_eq!(ids(&reviews, &a.train), ids(&shuffled, &b.train));
        assert_eq!(ids(&reviews, &a.validation), ids(&shuffled, &b.validation));
        let (a, b) = (subset(&reviews, Some(77)).unwrap(), subset(&shuffled, Some(77)).unwrap());
        assert_eq!(ids(&reviews, &a), ids(&shuffled, &b));
    }

    #[test]
    fn the_choice_is_fixed_for_good() {
        // Written down, so that no later version trains on another version's validation split.
        let reviews = reviews();
        let Split { train, validation } = split(&reviews, Some(100), 0.01).unwrap();
        assert_eq!(validation, [64, 247, 334, 450, 505, 586, 629, 726, 886, 953]);
        assert_eq!(train[..8], [2, 16, 32, 45, 56, 57, 62, 74]);
    }

    #[test]
    fn a_size_of_too_many_reviews_or_of_none_is_refused() {
        let message = split(&reviews(), Some(1001), 0.1).unwrap_err().to_string();
        assert_eq!(message, "expected a size of at most 1000 training reviews, found 1001");
        let message = split(&reviews(), Some(0), 0.1).unwrap_err().to_string();
        assert_eq!(
            message,
            "expected a size of at least 1, found 0: there would be no training reviews"
        );
        let message = subset(&reviews(), Some(0)).unwrap_err().to_string();
        assert_eq!(
            message,
            "expected a size of at least 1, found 0: there would be no test reviews"
        );
        assert_eq!(subset(&reviews(), Some(1)).unwrap().len(), 1);
    }

    #[test]
    fn an_epochs_order_is_a_function_of_seed_epoch_and_ids() {
        let reviews = reviews();
        let order = |seed, epoch| epoch_order(reviews.iter().map(|r| r.id.as_str()), seed, epoch);
        assert_eq!(order(1, 0), order(1, 0));
        assert_ne!(order(1, 0), order(1, 1));
        assert_ne!(order(1, 0), order(2, 0));
        let mut sorted = order(1, 0);
        sorted.sort_unstable();
        assert_eq!(sorted, (0..1000).collect::<Vec<_>>());
        // No class or neighbourhood clusters: the first hundred hold about 37 of class 1.
        let first: Vec<usize> = order(1, 0)[..100].to_vec();
        assert!((25..50).contains(&positive(&reviews, &first)));
    }
}
