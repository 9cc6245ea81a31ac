/// Counts of (true class, predicted class).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfusionMatrix {
    num_labels: usize,
    counts: Vec<u64>,
}

/// Precision, recall and F1 of one class, or their unweighted means over the classes.
///
/// A ratio without a denominator is 0, which is what scikit-learn's default comes to, but for its
/// warning. Means are over every class there is; scikit-learn's, unless it is given `labels`, leave out
/// those that are neither true nor predicted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClassMetrics {
    /// TP / (TP + FP).
    pub precision: f64,
    /// TP / (TP + FN).
    pub recall: f64,
    /// 2 TP / (2 TP + FP + FN).
    pub f1: f64,
}

impl ConfusionMatrix {
    /// Counts pairs of (true class, predicted class).
    ///
    /// # Panics
    ///
    /// If a class is not below `num_labels`.
    pub fn new(num_labels: usize, pairs: impl IntoIterator<Item = (usize, usize)>) -> Self {
        let mut counts = vec![0; num_labels * num_labels];
        for (label, class) in pairs {
            assert!(label < num_labels && class < num_labels, "class beyond {num_labels}");
            counts[label * num_labels + class] += 1;
        }
        Self { num_labels, counts }
    }

    /// Number of classes.
    pub fn num_labels(&self) -> usize {
        self.num_labels
    }

    /// Reviews of class `label` that were predicted to be `class`.
    pub fn count(&self, label: usize, class: usize) -> u64 {
        self.counts[label * self.num_labels + class]
    }

    /// Reviews counted.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Share of reviews predicted rightly.
    pub fn accuracy(&self) -> f64 {
        let right: u64 = (0..self.num_labels).map(|class| self.count(class, class)).sum();
        ratio(right, self.total())
    }

    /// Metrics of one class against all others: scikit-learn's `average="binary"` with this class
    /// as `pos_label`.
    pub fn of_class(&self, class: usize) -> ClassMetrics {
        let predicted: u64 = (0..self.num_labels).map(|label| self.count(label, class)).sum();
        let actual: u64 = (0..self.num_labels).map(|other| self.count(class, other)).sum();
        let right = self.count(class, class);
        ClassMetrics {
            precision: ratio(right, predicted),
            recall: ratio(right, actual),
            f1: ratio(2 * right, predicted + actual),
        }
    }

    /// Unweighted means over the classes: macro-F1 is the mean of F1s. A class that no counted review has
    /// is one of them, with 0 in all three.
    pub fn macro_average(&self) -> ClassMetrics {
        let mean = |value: fn(ClassMetrics) -> f64| {
            let sum: f64 = (0..self.num_labels).map(|class| value(self.of_class(class))).sum();
            sum / self.num_labels as f64
        };
        ClassMetrics {
            precision: mean(|metrics| metrics.precision),
            recall: mean(|metrics| metrics.recall),
            f1: mean(|metrics| metrics.f1),
        }
    }
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-12
    }

    #[test]
    fn binary_and_macro_metrics_of_a_known_matrix() {
        // scikit-learn 1.7: precision_recall_fscore_support on 5 TN, 2 FP, 1 FN, 4 TP.
        let pairs = [(0, 0); 5].into_iter().chain([(0, 1); 2]).chain([(1, 0)]).chain([(1, 1); 4]);
        let matrix = ConfusionMatrix::new(2, pairs);
        assert!(close(matrix.accuracy(), 0.75));
        let positive = matrix.of_class(1);
        assert!(close(positive.precision, 4.0 / 6.0));
        assert!(close(positive.recall, 0.8));
        assert!(close(positive.f1, 8.0 / 11.0));
        let average = matrix.macro_average();
        assert!(close(average.precision, (5.0 / 6.0 + 4.0 / 6.0) * 0.5));
        assert!(close(average.f1, (10.0 / 13.0 + 8.0 / 11.0) * 0.5));
        // Not the F1 of the averaged precision and recall.
        let (p, r) = (average.precision, average.recall);
        assert!(!close(average.f1, 2.0 * p * r / (p + r)));
    }

    #[test]
    fn a_class_that_is_never_predicted_has_zero_metrics() {
        let matrix = ConfusionMatrix::new(2, [(1, 0), (0, 0)]);
        assert_eq!(matrix.of_class(1), ClassMetrics { precision: 0.0, recall: 0.0, f1: 0.0 });
        assert!(close(matrix.macro_average().recall, 0.5));
    }

    #[test]
    fn three_classes_count_each_against_the_rest() {
        let matrix = ConfusionMatrix::new(3, [(0, 0), (1, 2), (2, 2), (2, 1), (0, 1), (1, 1)]);
        assert_eq!(matrix.count(1, 2), 1);
        assert!(close(matrix.of_class(1).precision, 1.0 / 3.0));
        assert!(close(matrix.of_class(2).recall, 0.5));
        assert!(close(matrix.accuracy(), 0.5));
    }
}
