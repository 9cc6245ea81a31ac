/// The middle value, or the mean of the two in the middle; not a number if there is none.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = |place: usize| sorted.get(place).copied().unwrap_or(f64::NAN);
    f64::midpoint(middle(sorted.len().saturating_sub(1) / 2), middle(sorted.len() / 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle_whatever_the_order() {
        let medians = [&[3.0, 1.0, 7.0][..], &[4.0, 1.0, 9.0, 2.0]].map(median);
        assert_eq!(medians.map(f64::to_bits), [3.0_f64, 3.0].map(f64::to_bits));
        assert!(median(&[]).is_nan());
    }
}
