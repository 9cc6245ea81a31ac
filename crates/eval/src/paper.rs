use nsmc_experiment::MethodKind;

/// One row of the paper's tables.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PaperRow {
    /// Training reviews.
    pub train_size: usize,
    /// Method.
    pub method: MethodKind,
    /// LoRA's rank.
    pub rank: Option<usize>,
    /// Shortest and longest time per epoch, in seconds on one V100.
    pub epoch_seconds: (u32, u32),
    /// Accuracy, mean over batches.
    pub accuracy: f64,
    /// Precision, mean over batches.
    pub precision: f64,
    /// Recall, mean over batches.
    pub recall: f64,
    /// F1, mean over batches.
    pub f1: f64,
}

const fn row(
    train_size: usize,
    method: MethodKind,
    rank: Option<usize>,
    epoch_seconds: (u32, u32),
    [accuracy, precision, recall, f1]: [f64; 4],
) -> PaperRow {
    PaperRow { train_size, method, rank, epoch_seconds, accuracy, precision, recall, f1 }
}

/// The results of *Evaluation of sentimental classification performance by fine-tuning methods
/// based on Pre-trained BERT* (Kookmin University): mBERT on NSMC, one run per row.
pub const PAPER: [PaperRow; 11] = [
    row(150_000, MethodKind::Vanilla, None, (1021, 1024), [0.871, 0.864, 0.882, 0.869]),
    row(150_000, MethodKind::AdapterFusion, None, (749, 750), [0.858, 0.856, 0.863, 0.855]),
    row(150_000, MethodKind::Lora, Some(64), (659, 661), [0.726, 0.745, 0.692, 0.711]),
    row(150_000, MethodKind::Lora, Some(32), (652, 653), [0.722, 0.741, 0.688, 0.707]),
    row(150_000, MethodKind::Lora, Some(16), (650, 651), [0.716, 0.751, 0.651, 0.691]),
    row(100_000, MethodKind::Vanilla, None, (679, 688), [0.864, 0.859, 0.873, 0.862]),
    row(100_000, MethodKind::AdapterFusion, None, (500, 501), [0.850, 0.849, 0.853, 0.847]),
    row(100_000, MethodKind::Lora, Some(64), (439, 441), [0.683, 0.692, 0.662, 0.670]),
    row(50_000, MethodKind::Vanilla, None, (340, 342), [0.848, 0.840, 0.863, 0.847]),
    row(50_000, MethodKind::AdapterFusion, None, (250, 252), [0.830, 0.836, 0.824, 0.826]),
    row(50_000, MethodKind::Lora, Some(64), (220, 220), [0.634, 0.620, 0.706, 0.653]),
];

impl PaperRow {
    /// The paper's row for a cell, if it has one.
    pub fn find(
        method: MethodKind,
        rank: Option<usize>,
        train_size: usize,
    ) -> Option<&'static Self> {
        PAPER
            .iter()
            .find(|row| (row.method, row.rank, row.train_size) == (method, rank, train_size))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_pooled_precision_and_recall_give_the_papers_f1() {
        for row in PAPER {
            let harmonic = 2.0 * row.precision * row.recall / (row.precision + row.recall);
            // Three printed digits: the harmonic mean is known to about 0.0005.
            assert!(harmonic - row.f1 > 0.001, "{row:?}: {harmonic}");
        }
    }

    #[test]
    fn a_cell_finds_its_row() {
        assert_eq!(
            PaperRow::find(MethodKind::Lora, Some(32), 150_000).unwrap().epoch_seconds,
            (652, 653)
        );
        assert!(PaperRow::find(MethodKind::Lora, Some(32), 50_000).is_none());
    }
}
