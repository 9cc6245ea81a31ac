use super::StatisticsError;

/// Holm's step-down correction of p-values for their number, in the order given.
///
/// The i-th smallest of m becomes max over j ≤ i of min(1, (m − j + 1) p₍ⱼ₎): comparing it with α
/// keeps the chance of any false rejection at α, whatever the tests' dependence. Source: Holm
/// (1979), "A Simple Sequentially Rejective Multiple Test Procedure".
///
/// An error if there are no p-values, or one is not from 0 to 1.
pub fn holm(p_values: &[f64]) -> Result<Vec<f64>, StatisticsError> {
    if p_values.is_empty() {
        return Err(StatisticsError::Empty("p-value"));
    }
    if let Some(&p) = p_values.iter().find(|p| !(0.0..=1.0).contains(*p)) {
        return Err(StatisticsError::Probability(p));
    }
    let mut order: Vec<usize> = (0..p_values.len()).collect();
    order.sort_by(|&a, &b| p_values[a].total_cmp(&p_values[b]));
    let mut corrected = vec![0.0; p_values.len()];
    let mut largest: f64 = 0.0;
    for (rank, &index) in order.iter().enumerate() {
        largest = largest.max((p_values.len() - rank) as f64 * p_values[index]).min(1.0);
        corrected[index] = largest;
    }
    Ok(corrected)
}
