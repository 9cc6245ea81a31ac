use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use nsmc_experiment::{FusionAttention, MethodConfig, RunRecord, RunStatus};

use super::{Answers, TestSet};
use crate::results::read_predictions;
use crate::statistics::wilson_interval;
use crate::{ClassificationReport, EvalError};

/// One run of a study.
#[derive(Clone, Debug)]
pub struct StudyRun {
    /// What the run left.
    pub record: RunRecord,
    /// What it said of the test reviews; none if it failed.
    pub answers: Option<Answers>,
    /// The metrics of that.
    pub report: Option<ClassificationReport>,
    /// Where its fusions attended to, per layer; empty unless it fused adapters.
    pub fusion_attention: Vec<FusionAttention>,
}

impl StudyRun {
    /// Reads a run directory; `tests` holds the test sets seen before, by their sha256.
    pub fn read(
        folder: &Path,
        tests: &mut BTreeMap<String, Arc<TestSet>>,
    ) -> Result<Self, EvalError> {
        let record = RunRecord::read(&folder.join("record.json"))?;
        let mut answers = None;
        if record.status == RunStatus::Success {
            let predictions = read_predictions(folder, &record)?;
            let test = TestSet::of(&predictions);
            let test = tests.entry(test.sha256()).or_insert_with(|| Arc::new(test)).clone();
            answers = Some(Answers::of(&predictions, test));
        }
        let attention = folder.join("fusion_attention.json");
        let fusion_attention = if attention.is_file() {
            let text = fs_err::read_to_string(&attention)?;
            let layers: Vec<FusionAttention> = serde_json::from_str(&text)
                .map_err(|reason| EvalError::Json { path: attention.clone(), reason })?;
            check_attention(&layers, &attention)?;
            layers
        } else {
            Vec::new()
        };
        Ok(Self::new(record, answers, fusion_attention))
    }

    /// A run and the metrics of its answers.
    pub fn new(
        record: RunRecord,
        answers: Option<Answers>,
        fusion_attention: Vec<FusionAttention>,
    ) -> Self {
        let report = answers.as_ref().map(|answers| {
            let rows = answers.answers.iter().zip(&answers.test.labels);
            let rows = rows.zip(&answers.test.in_training);
            let rows: Vec<_> =
                rows.map(|((answer, &label), &seen)| (label, answer.class, seen)).collect();
            let num_labels = record.config.data.labels.len();
            let batch = record.config.evaluation.metric_batch_size;
            ClassificationReport::of(num_labels, &rows, batch)
        });
        Self { record, answers, report, fusion_attention }
    }

    /// Whether the run learned nothing that its test could tell from always answering the most
    /// frequent class: the 95 % interval of its accuracy (Wilson's) does not lie above that class's
    /// share. A baseline that answers that class by design is no such run.
    pub fn is_at_chance(&self) -> bool {
        if self.record.config.method == MethodConfig::Majority {
            return false;
        }
        let (Some(answers), Some(report)) = (&self.answers, &self.report) else { return false };
        let total = report.confusion.total();
        let right = (0..report.confusion.num_labels())
            .map(|class| report.confusion.count(class, class))
            .sum();
        wilson_interval(right, total)
            .is_ok_and(|interval| interval.low <= answers.test.majority_share())
    }
}

/// Whether each layer has a weight for each adapter.
pub(super) fn check_attention(layers: &[FusionAttention], path: &Path) -> Result<(), EvalError> {
    let checked = layers.iter().try_for_each(FusionAttention::check);
    checked.map_err(|message| EvalError::File { path: path.into(), message })
}
