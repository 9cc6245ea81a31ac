use std::collections::BTreeMap;

use super::StatisticsError;

/// Paired sign-flip permutation test over seeds: p of the hypothesis that the two methods are
/// exchangeable within each seed.
///
/// `differences` holds, per seed, how many reviews more the first method predicted rightly: whole
/// numbers, so that equal sums compare as equal. p is the share of the 2ⁿ ways to give the n
/// differences signs whose sum is at least as large, sign aside, as the one found. The test is
/// exact for any number of seeds, for the distribution of the sum is built seed by seed from the
/// distinct sums; there are at most 2ⁿ, and at most 2 Σ|dᵢ| + 1.
///
/// Assumes that seeds are independent; says nothing of other reviews. No p is below 2¹⁻ⁿ: five
/// seeds cannot give less than 0.0625. Source: Fisher (1935), "The Design of Experiments", §21.
///
/// An error if there are no seeds.
pub fn sign_flip_p(differences: &[i64]) -> Result<f64, StatisticsError> {
    if differences.is_empty() {
        return Err(StatisticsError::Empty("seed"));
    }
    let mut shares = BTreeMap::from([(0_i64, 1.0_f64)]);
    for difference in differences {
        let mut next = BTreeMap::new();
        for (sum, share) in shares {
            *next.entry(sum + difference).or_default() += share / 2.0;
            *next.entry(sum - difference).or_default() += share / 2.0;
        }
        shares = next;
    }
    let found = differences.iter().sum::<i64>().abs();
    let p: f64 = shares.iter().filter(|(sum, _)| sum.abs() >= found).map(|(_, share)| share).sum();
    Ok(p.min(1.0))
}
