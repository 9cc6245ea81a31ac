use super::Answers;

/// How a model's confidence agrees with how often it is right.
///
/// The reviews are put into bins of equal width by the probability of the predicted class. The
/// expected calibration error is Σ_b n_b / n · |accuracy_b − confidence_b|. Source: Guo et al. (2017),
/// "On Calibration of Modern Neural Networks".
#[derive(Clone, Debug, PartialEq)]
pub struct Calibration {
    /// The bins that hold a review, from the least to the most confident.
    pub bins: Vec<CalibrationBin>,
    /// The expected calibration error, from 0 to 1.
    pub expected_error: f64,
    /// Reviews in all.
    pub reviews: usize,
}

/// The reviews of one range of confidence.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CalibrationBin {
    /// Reviews.
    pub reviews: usize,
    /// Mean probability of the predicted class.
    pub confidence: f64,
    /// Share of them predicted rightly.
    pub accuracy: f64,
}

impl Calibration {
    /// Bins over the whole range from 0 to 1; two classes use the upper half alone.
    pub const BINS: usize = 20;

    /// Of several runs on one test set, each review of each counted.
    pub fn new<'a>(runs: impl IntoIterator<Item = &'a Answers>) -> Self {
        let mut sums = [(0_usize, 0_usize, 0.0_f64); Self::BINS];
        for run in runs {
            for (answer, &label) in run.answers.iter().zip(&run.test.labels) {
                // The last bin holds its upper end, 1.
                let bin = usize::from(answer.confidence) * Self::BINS / 10_000;
                let (count, right, confidence) = &mut sums[bin.min(Self::BINS - 1)];
                *count += 1;
                *right += usize::from(answer.class == label);
                *confidence += answer.probability();
            }
        }
        let bins: Vec<CalibrationBin> = sums
            .iter()
            .filter(|(count, ..)| *count > 0)
            .map(|&(reviews, right, confidence)| CalibrationBin {
                reviews,
                confidence: confidence / reviews as f64,
                accuracy: right as f64 / reviews as f64,
            })
            .collect();
        let reviews = bins.iter().map(|bin| bin.reviews).sum();
        let gap = |bin: &CalibrationBin| {
            bin.reviews as f64 / reviews as f64 * (bin.accuracy - bin.confidence).abs()
        };
        let expected_error = bins.iter().map(gap).sum();
        Self { bins, expected_error, reviews }
    }

    /// The mean of the runs' expected calibration errors. That of all their reviews together would be
    /// small where one run is too sure and another not sure enough.
    pub fn mean_error<'a>(runs: impl IntoIterator<Item = &'a Answers>) -> f64 {
        let errors: Vec<f64> =
            runs.into_iter().map(|run| Self::new([run]).expected_error).collect();
        errors.iter().sum::<f64>() / errors.len() as f64
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::study::{Answer, TestSet};

    #[test]
    fn the_error_weighs_each_bins_gap_by_its_reviews() {
        let ids = (0..4).map(|id| id.to_string()).collect();
        let test = TestSet { ids, labels: vec![1; 4], in_training: vec![false; 4] };
        let answer = |class, confidence| Answer { class, confidence };
        let answers = vec![answer(1, 10_000), answer(1, 9600), answer(0, 9800), answer(1, 6000)];
        let answers = Answers { test: Arc::new(test), answers };
        let calibration = Calibration::new([&answers]);
        assert_eq!(calibration.bins.len(), 2);
        assert_eq!(calibration.bins[0].reviews, 1);
        // The bin from 0.95 to 1: 2 of 3 right, mean confidence 0.98. The other: right at 0.6.
        let expected = 0.75 * (0.98 - 2.0 / 3.0) + 0.25 * 0.4;
        assert!((calibration.expected_error - expected).abs() < 1e-12);
    }

    #[test]
    fn runs_that_are_wrong_in_opposite_ways_are_not_calibrated() {
        let ids = (0..2).map(|id| id.to_string()).collect();
        let test = TestSet { ids, labels: vec![1; 2], in_training: vec![false; 2] };
        let test = Arc::new(test);
        let [never, always] = [0, 1].map(|class| {
            let answer = Answer { class, confidence: 5000 };
            Answers { test: test.clone(), answers: vec![answer; 2] }
        });
        assert!(Calibration::new([&never, &always]).expected_error < 1e-12);
        assert!((Calibration::mean_error([&never, &always]) - 0.5).abs() < 1e-12);
    }
}
