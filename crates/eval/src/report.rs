use crate::{ClassMetrics, ConfusionMatrix, Predictions};

/// All metrics of one run's predictions.
#[derive(Clone, Debug, PartialEq)]
pub struct ClassificationReport {
    /// The pooled counts.
    pub confusion: ConfusionMatrix,
    /// Accuracy over all reviews.
    pub accuracy: f64,
    /// Precision, recall and F1 of the positive class (class 1), pooled over all reviews; none
    /// unless there are two classes.
    pub binary: Option<ClassMetrics>,
    /// Pooled macro averages.
    pub macro_average: ClassMetrics,
    /// Means over batches, as the paper's evaluation computed them; none unless there are two
    /// classes.
    pub batch_mean: Option<BatchMean>,
    /// Reviews whose document does not stand in the training file.
    pub unseen: usize,
    /// Accuracy over those; none if there are none.
    pub unseen_accuracy: Option<f64>,
}

/// Metrics computed batch by batch and averaged, the last, smaller batch at full weight.
///
/// This is how the tutorials that the paper's recipe follows evaluate. The harmonic mean is concave, so
/// that the mean of batch F1s is at most that of the means of precision and recall, 2PR / (P + R), and
/// below it where batches differ: it explains the paper's F1, which no pooled precision and recall give.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BatchMean {
    /// Mean of the batches' accuracies.
    pub accuracy: f64,
    /// Means of the batches' precision, recall and F1 of class 1; a batch without a denominator
    /// counts as 0.
    pub binary: ClassMetrics,
}

impl ClassificationReport {
    /// Computes every metric; `metric_batch_size` is the batch of the batch means, over the
    /// predictions in their order.
    ///
    /// # Panics
    ///
    /// If there are no predictions, or `metric_batch_size` is 0.
    pub fn new(predictions: &Predictions, metric_batch_size: usize) -> Self {
        let rows = predictions.rows.iter();
        let rows: Vec<_> = rows.map(|row| (row.label, row.class(), row.in_training)).collect();
        Self::of(predictions.num_labels, &rows, metric_batch_size)
    }

    /// The same of rows of (true class, predicted class, whether the document stands in the training
    /// file).
    ///
    /// # Panics
    ///
    /// If there are no rows, a class is not below `num_labels`, or `metric_batch_size` is 0.
    pub fn of(num_labels: usize, rows: &[(usize, usize, bool)], metric_batch_size: usize) -> Self {
        assert!(!rows.is_empty(), "a report needs predictions");
        let pairs: Vec<(usize, usize)> =
            rows.iter().map(|&(label, class, _)| (label, class)).collect();
        let confusion = ConfusionMatrix::new(num_labels, pairs.iter().copied());
        let unseen =
            rows.iter().filter(|(.., seen)| !seen).map(|&(label, class, _)| (label, class));
        let unseen = ConfusionMatrix::new(num_labels, unseen);
        let binary = num_labels == 2;
        Self {
            accuracy: confusion.accuracy(),
            binary: binary.then(|| confusion.of_class(1)),
            macro_average: confusion.macro_average(),
            batch_mean: binary.then(|| BatchMean::new(&pairs, metric_batch_size)),
            unseen: unseen.total() as usize,
            unseen_accuracy: (unseen.total() > 0).then(|| unseen.accuracy()),
            confusion,
        }
    }
}

impl BatchMean {
    fn new(pairs: &[(usize, usize)], batch_size: usize) -> Self {
        let mut sum =
            Self { accuracy: 0.0, binary: ClassMetrics { precision: 0.0, recall: 0.0, f1: 0.0 } };
        for batch in pairs.chunks(batch_size) {
            let confusion = ConfusionMatrix::new(2, batch.iter().copied());
            let positive = confusion.of_class(1);
            sum.accuracy += confusion.accuracy();
            sum.binary.precision += positive.precision;
            sum.binary.recall += positive.recall;
            sum.binary.f1 += positive.f1;
        }
        let batches = pairs.len().div_ceil(batch_size) as f64;
        Self {
            accuracy: sum.accuracy / batches,
            binary: ClassMetrics {
                precision: sum.binary.precision / batches,
                recall: sum.binary.recall / batches,
                f1: sum.binary.f1 / batches,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Prediction;

    fn predictions(pairs: &[(usize, usize, bool)]) -> Predictions {
        let rows = pairs.iter().enumerate().map(|(id, &(label, class, in_training))| Prediction {
            id: id.to_string(),
            label,
            in_training,
            logits: if class == 1 { vec![0.0, 1.0] } else { vec![1.0, 0.0] },
        });
        Predictions { num_labels: 2, rows: rows.collect() }
    }

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-12
    }

    #[test]
    fn batch_means_give_the_last_batch_full_weight() {
        // Batches of 2: (TP, FN), (TN, FP), (TP).
        let report = ClassificationReport::new(
            &predictions(&[
                (1, 1, false),
                (1, 0, false),
                (0, 0, false),
                (0, 1, true),
                (1, 1, true),
            ]),
            2,
        );
        let mean = report.batch_mean.unwrap();
        assert!(close(report.accuracy, 3.0 / 5.0));
        assert!(close(mean.accuracy, (0.5 + 0.5 + 1.0) / 3.0));
        assert!(close(mean.binary.precision, (1.0 + 0.0 + 1.0) / 3.0));
        assert!(close(mean.binary.recall, (0.5 + 0.0 + 1.0) / 3.0));
        assert!(close(mean.binary.f1, (2.0 / 3.0 + 0.0 + 1.0) / 3.0));
        assert_eq!(report.unseen, 3);
        assert!(close(report.unseen_accuracy.unwrap(), 2.0 / 3.0));
    }

    #[test]
    fn the_mean_of_batch_f1s_lies_below_the_pooled_f1() {
        // Errors spread unevenly over batches, as in any real run.
        let pairs: Vec<_> = (0..640)
            .map(|i: usize| {
                let label = usize::from((i * 7919) % 13 > 5);
                let wrong = (i * i * 31 + i * 17).is_multiple_of(8);
                (label, if wrong { 1 - label } else { label }, false)
            })
            .collect();
        let report = ClassificationReport::new(&predictions(&pairs), 32);
        let (pooled, mean) = (report.binary.unwrap(), report.batch_mean.unwrap().binary);
        assert!(mean.f1 < pooled.f1);
        let (p, r) = (mean.precision, mean.recall);
        assert!(mean.f1 < 2.0 * p * r / (p + r));
    }
}
