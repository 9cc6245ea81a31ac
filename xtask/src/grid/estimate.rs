use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use anyhow::Result;
use nsmc_eval::statistics::median;
use nsmc_experiment::{
    DataFile, DatasetManifest, EpochRecord, ExperimentConfig, MethodConfig, ModelConfig, Rows,
    RunRecord,
};

use crate::grid::room::Shape;

/// How long a run takes, and where that is known from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Estimate {
    pub(crate) seconds: f64,
    /// The number of earlier runs that it was measured on; 0 is a guess.
    pub(crate) measured: usize,
}

/// What earlier runs on this machine say of the speed of the next.
pub(crate) struct Speeds {
    /// By method, model, data set and kind of device.
    measured: BTreeMap<Key, Vec<Speed>>,
    datasets: DatasetManifest,
    cuda: bool,
    /// The rows of files that stand in no manifest, which every run of a grid asks for.
    rows: RefCell<HashMap<PathBuf, Option<usize>>>,
}

type Key = (&'static str, String, String, bool);

/// Seconds per review with one thread; on a GPU, per review.
#[derive(Clone, Copy)]
struct Speed {
    /// A training step's share, by stage: AdapterFusion has two.
    train: [f64; 2],
    /// A forward pass's.
    test: f64,
}

/// Multiplications and additions per second that a guess goes by: of a core of a CPU, as measured
/// with `nsmc bench train` on an Intel Xeon with AVX-512, and of a GPU in float32.
const GUESSED_CORE: f64 = 75e9;
const GUESSED_GPU: f64 = 10e12;
/// Tokens of a review of NSMC in mBERT's vocabulary, on average.
const GUESSED_TOKENS: f64 = 24.0;
/// Seconds per training review of the TF-IDF baseline.
const GUESSED_TFIDF: f64 = 3e-4;
/// Seconds of a run beside training and testing, whatever its size: start, checkpoints.
const GUESSED_REST: f64 = 5.0;

impl Speeds {
    /// Reads the records in `runs`.
    pub(crate) fn read(runs: &Path, datasets: DatasetManifest, cuda: bool) -> Result<Self> {
        let mut measured: BTreeMap<Key, Vec<Speed>> = BTreeMap::new();
        if runs.is_dir() {
            for entry in fs_err::read_dir(runs)? {
                let Ok(record) = RunRecord::read(&entry?.path().join("record.json")) else {
                    continue;
                };
                if let Some(speed) = Speed::of(&record) {
                    let cuda = record.gpus() > 0;
                    measured.entry(key(&record.config, cuda)).or_default().push(speed);
                }
            }
        }
        Ok(Self { measured, datasets, cuda, rows: RefCell::default() })
    }

    /// How long a run takes with this many threads, from nothing to its record; none if the model's
    /// size is not known, or the number of reviews.
    pub(crate) fn estimate(&self, config: &ExperimentConfig, threads: usize) -> Option<Estimate> {
        if config.method.is_baseline() {
            return self.baseline(config);
        }
        let (speed, measured) = match self.measured.get(&key(config, self.cuda)) {
            Some(speeds) => (Speed::median(speeds), speeds.len()),
            None => (self.guess(config)?, 0),
        };
        let (train, validation, test) = self.reviews(config)?;
        let epochs = config.training.num_train_epochs as f64;
        let first_epochs = match &config.method {
            MethodConfig::AdapterFusion(fusion) => fusion.adapter_training.num_train_epochs as f64,
            _ => 0.0,
        };
        let trained = train * (epochs * speed.train[1] + first_epochs * speed.train[0]);
        let tested = speed.test * (test + validation * (epochs + first_epochs));
        let threads = if self.cuda { 1.0 } else { threads as f64 };
        Some(Estimate { seconds: (trained + tested) / threads + GUESSED_REST, measured })
    }

    /// That of a baseline, which the size of no model decides.
    fn baseline(&self, config: &ExperimentConfig) -> Option<Estimate> {
        let per_review = match config.method {
            MethodConfig::Majority => 0.0,
            _ => GUESSED_TFIDF,
        };
        let (train, ..) = self.reviews(config)?;
        Some(Estimate { seconds: GUESSED_REST + per_review * train, measured: 0 })
    }

    /// Reviews trained on, validated and tested.
    fn reviews(&self, config: &ExperimentConfig) -> Option<(f64, f64, f64)> {
        let data = &config.data;
        let entry = self.datasets.datasets.get(&data.dataset);
        let count = |rows: Rows, file: &DataFile, all: Option<usize>| match rows {
            Rows::Exactly(rows) => Some(rows as f64),
            Rows::All if !file.class_counts.is_empty() => {
                Some(file.class_counts.iter().sum::<usize>() as f64)
            }
            Rows::All => all.or_else(|| self.rows_of(&file.path)).map(|rows| rows as f64),
        };
        let all = entry.map(|entry| entry.train.rows);
        let train = count(data.train_size, &data.train, all)?;
        let test = count(data.test_size, &data.test, entry.map(|entry| entry.test.rows))?;
        // The same reviews are held out for every size: a share of the whole file.
        let whole = count(Rows::All, &data.train, all);
        let held_out = whole.unwrap_or(train) * data.validation_fraction;
        Some((train * (1.0 - data.validation_fraction), held_out, test))
    }

    fn rows_of(&self, file: &Path) -> Option<usize> {
        *self.rows.borrow_mut().entry(file.into()).or_insert_with(|| count_rows(file))
    }

    fn guess(&self, config: &ExperimentConfig) -> Option<Speed> {
        let per_second = if self.cuda { GUESSED_GPU } else { GUESSED_CORE };
        let forward = 2.0 * Shape::of(&config.model)?.encoder() * GUESSED_TOKENS / per_second;
        // Forward, the gradient of the input, and that of the weights where they train.
        let passes = match config.method {
            MethodConfig::Vanilla => 3.0,
            MethodConfig::HeadOnly(_) => 1.0,
            _ => 2.3,
        };
        Some(Speed { train: [forward * passes; 2], test: forward })
    }
}

/// About as many as its lines: a field may hold some.
fn count_rows(file: &Path) -> Option<usize> {
    let mut lines = BufReader::new(fs_err::File::open(file).ok()?).split(b'\n');
    // Whatever it is encoded in. A folder is no file, but can be opened, and never read.
    let lines = lines.try_fold(0_usize, |lines, line| line.map(|_| lines + 1));
    Some(lines.ok()?.saturating_sub(1))
}

fn key(config: &ExperimentConfig, cuda: bool) -> Key {
    let model = match &config.model {
        ModelConfig::Pretrained { name, .. } => name.clone(),
        ModelConfig::Scratch(shape) => format!("{shape:?}"),
    };
    (config.method.name(), model, config.data.dataset.clone(), cuda)
}

impl Speed {
    fn of(record: &RunRecord) -> Option<Self> {
        let results = record.results.as_ref()?;
        let threads = if record.gpus() > 0 { 1 } else { record.threads.max(1) };
        let reviews = results.train_reviews.max(1) as f64;
        let per_review = |epochs: &[EpochRecord]| {
            let seconds: Vec<f64> = epochs.iter().map(|epoch| epoch.train_seconds).collect();
            median(&seconds) / reviews * threads as f64
        };
        let last = per_review(&results.epochs);
        let first = results.adapter_stage.as_ref().map(|stage| per_review(&stage.epochs));
        let test = results.test_seconds / results.test_reviews.max(1) as f64 * threads as f64;
        let speed = Self { train: [first.unwrap_or(last), last], test };
        (last.is_finite() && test.is_finite()).then_some(speed)
    }

    fn median(speeds: &[Self]) -> Self {
        let of = |part: fn(&Self) -> f64| median(&speeds.iter().map(part).collect::<Vec<_>>());
        Self {
            train: [of(|speed| speed.train[0]), of(|speed| speed.train[1])],
            test: of(|speed| speed.test),
        }
    }
}
