use std::io::ErrorKind;
use std::path::Path;

use nsmc_experiment::{
    ExperimentConfig, MethodConfig, ModelConfig, Rows, RunRecord, RunResults, RunStatus, sha256_hex,
};

use crate::{
    ClassificationReport, EvalError, PaperRow, Predictions, Table, Words, minutes_and_seconds,
    with_thousands,
};

/// A run directory's record and what its predictions say.
#[derive(Clone, Debug)]
pub struct EvaluatedRun {
    /// `record.json`.
    pub record: RunRecord,
    /// The metrics of `predictions.tsv`; none if the run failed.
    pub report: Option<ClassificationReport>,
}

impl EvaluatedRun {
    /// Reads a run directory and computes its metrics.
    pub fn read(folder: &Path) -> Result<Self, EvalError> {
        let record = RunRecord::read(&folder.join("record.json"))?;
        let report = match record.status {
            RunStatus::Success => {
                let predictions = read_predictions(folder, &record)?;
                let batch = record.config.evaluation.metric_batch_size;
                Some(ClassificationReport::new(&predictions, batch))
            }
            RunStatus::Failed { .. } => None,
        };
        Ok(Self { record, report })
    }
}

/// What is to be done where a run's predictions are not those that it wrote.
const LOST: &str = "put back the file that the run wrote, or delete the run directory: the command that \
                    made it makes it anew, as `cargo xtask train` does with `--again`";

/// A run's predictions, which must be those that its record is of: of as many classes as its
/// configuration, of as many reviews as it tested, and byte for byte what it wrote. Metrics of others
/// would stand in a table under the run's name.
pub(crate) fn read_predictions(
    folder: &Path,
    record: &RunRecord,
) -> Result<Predictions, EvalError> {
    let path = folder.join("predictions.tsv");
    let refuse = |message: String| EvalError::File { path: path.clone(), message };
    let bytes = match fs_err::read(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(refuse(format!(
                "no such file, but record.json says that the run is done: {LOST}"
            )));
        }
        bytes => bytes?,
    };
    let sha256 = sha256_hex(&bytes);
    let written = record.results.as_ref().map(|results| results.predictions_sha256.as_str());
    let changed = written.is_some_and(|written| written != sha256);
    let predictions = match Predictions::parse(bytes.as_slice(), &path) {
        Err(EvalError::Line { path, line, message }) if changed => {
            return Err(EvalError::Line { path, line, message: format!("{message}: {LOST}") });
        }
        Err(EvalError::Empty { .. }) if changed => {
            return Err(refuse(format!("no predictions: {LOST}")));
        }
        predictions => predictions?,
    };
    let (expected, found) = (record.config.data.labels.len(), predictions.num_labels);
    if found != expected {
        let message =
            format!("expected {expected} classes, as in the run's configuration, found {found}");
        return Err(refuse(message));
    }
    let Some(results) = &record.results else { return Ok(predictions) };
    let (expected, found) = (results.test_reviews, predictions.rows.len());
    if found != expected {
        return Err(refuse(format!(
            "expected {expected} predictions, one per review that the run tested (record.json), found \
             {found}: {LOST}"
        )));
    }
    if changed {
        return Err(refuse(format!(
            "not the predictions that record.json is of: expected sha256 {}, found {sha256}: {LOST}",
            results.predictions_sha256
        )));
    }
    Ok(predictions)
}

/// One row per run: quality, cost and size.
///
/// Precision, recall and F1 are those of the positive class where there are two classes, and macro
/// averages otherwise.
pub fn results_table(runs: &[EvaluatedRun]) -> Table {
    let whose = whose(runs);
    let of_class = |metric: &str| match &whose {
        Some(class) => format!("{metric}\n({class})"),
        None => metric.to_owned(),
    };
    let mut table = Table::new(
        [
            "model",
            "method",
            "reviews",
            "seed",
            "accuracy",
            of_class("precision").as_str(),
            of_class("recall").as_str(),
            of_class("F1").as_str(),
            "F1, mean\nof batches",
            "accuracy,\nnew texts",
            "time per\nepoch",
            "trainable",
            "parameters",
            "peak\nMiB",
        ],
        2,
    );
    for run in runs {
        let config = &run.record.config;
        let baseline = config.method.is_baseline();
        let unless_baseline = |text: String| if baseline { "–".into() } else { text };
        let mut row = vec![
            unless_baseline(model_name(config)),
            config.method.label(),
            config.data.train_size.to_string(),
            unless_baseline(config.seed.to_string()),
        ];
        row.extend(match (&run.report, &run.record.results) {
            (Some(report), Some(results)) => figures(report, results),
            _ => std::iter::once("failed".to_owned())
                .chain(std::iter::repeat_n(String::new(), 9))
                .collect(),
        });
        table.push(row);
    }
    table
}

/// What the metrics of all runs are of: the one class, or a mean over classes.
fn whose(runs: &[EvaluatedRun]) -> Option<String> {
    let of = |run: &EvaluatedRun| match run.record.config.data.label_names.as_slice() {
        [_, positive] => positive.clone(),
        _ => "macro".into(),
    };
    let (first, others) = runs.split_first()?;
    let whose = of(first);
    others.iter().all(|run| of(run) == whose).then_some(whose)
}

fn figures(report: &ClassificationReport, results: &RunResults) -> Vec<String> {
    let ratio = |value: f64| format!("{value:.4}");
    let optional = |value: Option<f64>| value.map_or_else(|| "–".into(), ratio);
    let metrics = report.binary.unwrap_or(report.macro_average);
    vec![
        ratio(report.accuracy),
        ratio(metrics.precision),
        ratio(metrics.recall),
        ratio(metrics.f1),
        optional(report.batch_mean.map(|mean| mean.binary.f1)),
        optional(report.unseen_accuracy),
        results.epoch_seconds().map_or_else(|| "–".into(), minutes_and_seconds),
        with_thousands(results.trainable_parameters),
        with_thousands(results.total_parameters),
        results.peak_memory_mib.map_or_else(|| "–".into(), |mib| format!("{mib:.0}")),
    ]
}

/// The runs that stand for a row of the paper's tables beside that row, in its own way of
/// averaging: means over batches.
///
/// None if no run does: only the paper's model on the paper's data is compared with it.
pub fn paper_table(runs: &[EvaluatedRun]) -> Option<Table> {
    let mut table = Table::new(
        [
            "method",
            "reviews",
            "seed",
            "accuracy",
            "paper",
            "precision",
            "paper",
            "recall",
            "paper",
            "F1",
            "paper",
        ],
        1,
    );
    let mut rows = 0;
    for run in runs {
        let config = &run.record.config;
        let (Some(paper), Some(mean)) =
            (paper_row(config), run.report.as_ref().and_then(|report| report.batch_mean))
        else {
            continue;
        };
        rows += 1;
        let ours = |value: f64| format!("{value:.3}");
        let theirs = |value: f64| format!("{value:.3}");
        table.push([
            config.method.label(),
            config.data.train_size.to_string(),
            config.seed.to_string(),
            ours(mean.accuracy),
            theirs(paper.accuracy),
            ours(mean.binary.precision),
            theirs(paper.precision),
            ours(mean.binary.recall),
            theirs(paper.recall),
            ours(mean.binary.f1),
            theirs(paper.f1),
        ]);
    }
    (rows > 0).then_some(table)
}

fn model_name(config: &ExperimentConfig) -> String {
    match &config.model {
        ModelConfig::Pretrained { name, .. } => name.clone(),
        ModelConfig::Scratch(shape) => {
            format!("from scratch, {}×{}", shape.num_hidden_layers, shape.hidden_size)
        }
    }
}

/// Model, revision and test set of a run, in words: what runs must share to be compared. Plans and data
/// files hold it, so it stays as it is.
pub(crate) fn setting(config: &ExperimentConfig) -> String {
    let data = &config.data;
    format!("{} on {}, {} test reviews", model_words(config).en, data.dataset, data.test_size)
}

/// The data set that the paper's figures are of.
pub(crate) const PAPER_DATASET: &str = "nsmc";

/// Whether a [`setting`] is of the data set that the paper's figures are of: what is known of a cell
/// without runs.
pub(crate) fn names_papers_data(setting: &str) -> bool {
    setting.contains(&format!(" on {PAPER_DATASET}, "))
}

/// [`setting`] as it is read, in both languages.
pub(crate) fn setting_words(config: &ExperimentConfig) -> Words {
    let (model, dataset) = (model_words(config), &config.data.dataset);
    let reviews = match config.data.test_size {
        Rows::All => Words::new("all test reviews", "테스트 리뷰 전체"),
        Rows::Exactly(size) => {
            let size = with_thousands(size);
            Words::new(format!("{size} test reviews"), format!("테스트 리뷰 {size}건"))
        }
    };
    Words::new(
        format!("{} on {dataset}, {}", model.en, reviews.en),
        format!("{}, {dataset} {}", model.ko, reviews.ko),
    )
}

fn model_words(config: &ExperimentConfig) -> Words {
    match &config.model {
        ModelConfig::Pretrained { name, revision, .. } => {
            Words::from(format!("{name} ({})", revision.get(..7).unwrap_or(revision)))
        }
        ModelConfig::Scratch(shape) => {
            let shape = format!("{}×{}", shape.num_hidden_layers, shape.hidden_size);
            Words::new(model_name(config), format!("처음부터 학습한 모델 {shape}"))
        }
    }
}

pub(crate) fn paper_row(config: &ExperimentConfig) -> Option<&'static PaperRow> {
    let ModelConfig::Pretrained { name, .. } = &config.model else {
        return None;
    };
    if name != "bert-base-multilingual-cased" || config.data.dataset != PAPER_DATASET {
        return None;
    }
    let Rows::Exactly(train_size) = config.data.train_size else {
        return None;
    };
    if matches!(&config.method, MethodConfig::AdapterFusion(fusion) if !fusion.is_the_papers()) {
        return None;
    }
    PaperRow::find(config.method.kind(), config.method.rank(), train_size)
}
