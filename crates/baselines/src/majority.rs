/// Answers the most frequent class of the training texts, whatever the text: scikit-learn's
/// `DummyClassifier(strategy="prior")`.
#[derive(Clone, Debug, PartialEq)]
pub struct Majority {
    logits: Vec<f32>,
}

impl Majority {
    /// From the classes of the training texts, each below `classes`.
    pub fn fit(labels: &[usize], classes: usize) -> Self {
        let share = |class| {
            let count = labels.iter().filter(|&&label| label == class).count();
            count as f64 / labels.len().max(1) as f64
        };
        // A class without a text has the probability 0, whose logarithm is no number.
        let logit = |class| (share(class) as f32).max(f32::MIN_POSITIVE).ln();
        Self { logits: (0..classes).map(logit).collect() }
    }

    /// Natural logarithms of the classes' shares: their softmax is the shares.
    pub fn logits(&self) -> &[f32] {
        &self.logits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_are_the_shares_of_the_classes() {
        let majority = Majority::fit(&[0, 2, 2, 2, 0, 2, 2, 2], 4);
        let probabilities: Vec<f32> = majority.logits().iter().map(|logit| logit.exp()).collect();
        assert!((probabilities[0] - 0.25).abs() < 1e-6 && (probabilities[2] - 0.75).abs() < 1e-6);
        assert!(probabilities[1] < 1e-30 && majority.logits()[1].is_finite());
    }
}
