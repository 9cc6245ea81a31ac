//! Whether a finished run is still what it was: everything that can be computed again is, and held
//! against what the run wrote down.

use std::fmt::Display;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use nsmc_eval::{ClassificationReport, Predictions};
use nsmc_experiment::{
    ExperimentConfig, MethodConfig, RunRecord, RunResults, RunStatus, Stretch, is_of_pretraining,
    sha256_file,
};
use serde::Serialize;

use crate::args::Verify;
use crate::corpus::Corpus;
use crate::output::print;
use crate::{checksums, logging, provenance, run_directory};

/// What stands in a run directory from its beginning, or from the end of its training. A folder with
/// none of them is another, which nobody should be told to delete.
const OF_A_RUN: [&str; 4] = ["config.toml", run_directory::LOCK, "resume", "fitted.toml"];

/// What was found of one run.
#[derive(Serialize)]
struct Findings {
    run: PathBuf,
    /// Whether it is the directory of a run; nothing else is said of a folder that is not.
    is_run: bool,
    /// It has no record, or that of a run that was stopped or failed.
    unfinished: bool,
    differences: Vec<Difference>,
    /// What could not be checked, and why.
    notes: Vec<String>,
    /// Computed from the predictions; none if they cannot be read.
    metrics: Option<Metrics>,
    /// Files whose hash was computed.
    files: usize,
}

/// A file, or a key of one, that is not what it was.
#[derive(Serialize)]
struct Difference {
    place: String,
    expected: String,
    found: String,
}

#[derive(Serialize)]
struct Metrics {
    reviews: usize,
    accuracy: f64,
    precision: f64,
    recall: f64,
    f1: f64,
}

pub(crate) fn run(args: &Verify, verbosity: u8) -> Result<()> {
    logging::start(verbosity, None)?;
    // `runs/*` has reports in it, too.
    let (runs, others): (Vec<&PathBuf>, Vec<&PathBuf>) =
        args.runs.iter().partition(|path| path.is_dir());
    if runs.is_empty() {
        bail!("{}: no run directory", others[0].display());
    }
    for path in others {
        tracing::warn!(path = %path.display(), "no run directory: passed over");
    }
    let mut all = Vec::new();
    for run in runs {
        let findings = Findings::of(run, &args.moved.set)?;
        if !args.json {
            findings.tell()?;
        }
        all.push(findings);
    }
    if args.json {
        print(serde_json::to_string_pretty(&serde_json::json!({ "runs": all }))?)?;
    }
    let count = |wrong: &dyn Fn(&Findings) -> bool| all.iter().filter(|it| wrong(it)).count();
    let others = count(&|findings| !findings.is_run);
    let unfinished = count(&|findings| findings.unfinished);
    let changed = count(&|it| it.is_run && !it.unfinished && !it.differences.is_empty());
    let mut wrong = Vec::new();
    if others > 0 {
        wrong.push(format!(
            "{others} of {} folders are no run directories: give the folders of runs, as `cargo xtask` \
             leaves them in runs/",
            all.len()
        ));
    }
    if changed > 0 {
        wrong.push(format!("{changed} of {} runs are not what they were", all.len()));
    }
    if unfinished > 0 {
        wrong.push(format!(
            "{unfinished} of {} runs have not come to their end: the command that began a run goes on \
             with it, or delete its directory",
            all.len()
        ));
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("; "));
    Ok(())
}

/// Whether a folder is, or was to be, a run's.
fn is_of_a_run(folder: &Path) -> bool {
    folder.join("record.json").is_file() || OF_A_RUN.iter().any(|name| folder.join(name).exists())
}

/// What a folder is that is no run's, and what may have been meant.
fn what_it_is(folder: &Path) -> String {
    let [config, lock, resume, fitted] = OF_A_RUN;
    let mut found =
        format!("none, and no {config}, {lock}, {resume}/ or {fitted}: this is no run directory");
    // One that cannot be read holds nothing to be suggested.
    let entries = fs_err::read_dir(folder).into_iter().flatten();
    let runs = entries.filter(|entry| entry.as_ref().is_ok_and(|entry| is_of_a_run(&entry.path())));
    match runs.count() {
        0 => {}
        runs => {
            let them = folder.join("*");
            found += &format!("; {runs} in it are: `nsmc verify {}`", them.display());
        }
    }
    found
}

impl Findings {
    fn of(run: &Path, moved: &[String]) -> Result<Self> {
        let mut findings = Self {
            run: run.into(),
            is_run: is_of_a_run(run),
            unfinished: false,
            differences: Vec::new(),
            notes: Vec::new(),
            metrics: None,
            files: 0,
        };
        if !findings.is_run {
            findings.differs("record.json", "the record of a run", what_it_is(run));
            return Ok(findings);
        }
        if !run.join("record.json").is_file() {
            findings.unfinished = true;
            findings.differs("record.json", "the record of a finished run", "no such file");
            return Ok(findings);
        }
        let record = RunRecord::read(&run.join("record.json"));
        findings.checksums(run, record.as_ref().ok())?;
        match record {
            Ok(record) => findings.record(run, &record, moved)?,
            Err(_) if is_of_pretraining(&run.join("record.json")) => findings.notes.push(
                "a pre-training: it has no predictions and no hashes to be held against".into(),
            ),
            Err(error) => findings.differs("record.json", "a run's record", error),
        }
        Ok(findings)
    }

    fn differs(&mut self, place: &str, expected: impl Display, found: impl Display) {
        let (place, expected, found) = (place.into(), format!("{expected}"), format!("{found}"));
        self.differences.push(Difference { place, expected, found });
    }

    fn same<T: PartialEq + Display>(&mut self, place: &str, expected: T, found: T) {
        if expected != found {
            self.differs(place, expected, found);
        }
    }

    /// Each file of the run directory against `SHA256SUMS`.
    fn checksums(&mut self, run: &Path, record: Option<&RunRecord>) -> Result<()> {
        let expected = match checksums::read(run) {
            Ok(Some(expected)) => expected,
            Ok(None) => {
                // Records have named what a run read for as long as there have been hashes beside them.
                match record {
                    Some(RunRecord { provenance: Some(_), status: RunStatus::Success, .. }) => self
                        .differs(checksums::FILE, "the hashes of the run's files", "no such file"),
                    _ => self
                        .notes
                        .push(format!("no {}: the run's files are not checked", checksums::FILE)),
                }
                return Ok(());
            }
            Err(error) => {
                self.differs(checksums::FILE, "hashes and paths", format!("{error:#}"));
                return Ok(());
            }
        };
        let found = checksums::of(run)?;
        self.files += found.len();
        for (path, hash) in &expected {
            match found.get(path) {
                Some(other) => self.same(path, format!("sha256 {hash}"), format!("sha256 {other}")),
                None => self.differs(path, format!("sha256 {hash}"), "no such file"),
            }
        }
        for path in found.keys().filter(|path| !expected.contains_key(*path)) {
            self.differs(path, "no such file", format!("a file that {} lacks", checksums::FILE));
        }
        Ok(())
    }

    fn record(&mut self, run: &Path, record: &RunRecord, moved: &[String]) -> Result<()> {
        let config = self.config(run, record);
        let config = provenance::relocated(&config, run, moved)
            .with_context(|| format!("{}", run.display()))?;
        if let Some(provenance) = &record.provenance {
            for (place, expected) in &provenance.inputs {
                self.input(&config, place, expected)?;
            }
            let known = provenance::places(&config);
            let unread = known
                .iter()
                .filter(|(place, path)| path.is_file() && !provenance.inputs.contains_key(place));
            // One that failed may have done so before it read them all.
            if record.status == RunStatus::Success {
                for (place, _) in unread {
                    self.differs(place, "no such file", "a file that the run did not read");
                }
            }
        } else {
            self.notes.push("an older record: it has no hashes of the model's files".into());
            for (place, expected) in provenance::data(&config.data) {
                self.input(&config, &place, &expected)?;
            }
        }
        if !record.stretches.is_empty() {
            let total = Stretch::total_seconds(&record.stretches);
            if (total - record.total_seconds).abs() > 1e-6 {
                self.differs("record.json: total_seconds", total, record.total_seconds);
            }
        }
        let programs = Stretch::programs(&record.stretches);
        if programs.len() > 1 {
            let programs = programs.join(", ");
            self.notes
                .push(format!("several programs worked on it, one after the other: {programs}"));
        }
        let devices = Stretch::devices(&record.stretches);
        if devices.len() > 1 {
            self.notes.push(format!(
                "it was computed on one device after the other, and its times are of all: {}",
                devices.join("; ")
            ));
        }
        match (&record.status, &record.results) {
            (RunStatus::Success, Some(results)) => self.results(run, &config, results),
            (RunStatus::Success, None) => {
                self.differs("record.json: results", "what the run found", "none");
                Ok(())
            }
            (RunStatus::Failed { error }, _) => {
                self.unfinished = true;
                self.differs("record.json: status", "a finished run", format!("failed: {error}"));
                Ok(())
            }
        }
    }

    /// The configuration with its places, after a check of the identity.
    fn config(&mut self, run: &Path, record: &RunRecord) -> ExperimentConfig {
        let path = run.join("config.toml");
        let config = if path.is_file() {
            match ExperimentConfig::read(&path) {
                Ok(config) => config,
                Err(error) => {
                    self.differs("config.toml", "a resolved configuration", error);
                    record.config.clone()
                }
            }
        } else {
            self.notes.push("no config.toml: where the run read its files is not known".into());
            record.config.clone()
        };
        self.same("record.json: identity", config.identity(), record.identity.clone());
        self.same("record.json: run_id", config.run_id(), record.run_id.clone());
        if config.without_paths() != record.config.without_paths() {
            self.differs("record.json: config", "what config.toml says", "something else");
        }
        config
    }

    /// A file that the run read, if it is at hand.
    fn input(&mut self, config: &ExperimentConfig, place: &str, expected: &str) -> Result<()> {
        let path = provenance::places(config)
            .into_iter()
            .find_map(|(key, path)| (key == place).then_some(path))
            .filter(|path| path.is_file());
        let Some(path) = path else {
            let key = place.split('/').next().unwrap_or(place);
            self.notes
                .push(format!("{place}: not at hand (`--set {key}.path=…` says where it lies)"));
            return Ok(());
        };
        self.files += 1;
        let found = sha256_file(&path)?;
        if found != expected {
            let place = format!("{place} ({})", path.display());
            self.differs(&place, format!("sha256 {expected}"), format!("sha256 {found}"));
        }
        Ok(())
    }

    fn results(
        &mut self,
        run: &Path,
        config: &ExperimentConfig,
        results: &RunResults,
    ) -> Result<()> {
        let steps: usize = results.epochs.iter().map(|epoch| epoch.steps).sum();
        self.same("record.json: steps", steps, results.steps);
        if !config.method.is_baseline() {
            let (expected, found) = (config.training.num_train_epochs, results.epochs.len());
            self.same("record.json: epochs", expected, found);
        }
        if let (MethodConfig::AdapterFusion(method), Some(stage)) =
            (&config.method, &results.adapter_stage)
        {
            let expected = method.adapter_training.num_train_epochs;
            self.same("record.json: adapter_stage: epochs", expected, stage.epochs.len());
        }
        let path = run.join("predictions.tsv");
        if !path.is_file() {
            self.differs("predictions.tsv", "the run's predictions", "no such file");
            return Ok(());
        }
        let found = sha256_file(&path)?;
        if found != results.predictions_sha256 {
            let expected = format!("sha256 {} (record.json)", results.predictions_sha256);
            self.differs("predictions.tsv", expected, format!("sha256 {found}"));
        }
        let predictions = match Predictions::read(&path) {
            Ok(predictions) => predictions,
            Err(error) => {
                self.differs("predictions.tsv", "the run's predictions", error);
                return Ok(());
            }
        };
        self.same("predictions.tsv: rows", results.test_reviews, predictions.rows.len());
        self.same("predictions.tsv: classes", config.data.labels.len(), predictions.num_labels);
        let report = ClassificationReport::new(&predictions, config.evaluation.metric_batch_size);
        let metrics = report.binary.unwrap_or(report.macro_average);
        self.metrics = Some(Metrics {
            reviews: predictions.rows.len(),
            accuracy: report.accuracy,
            precision: metrics.precision,
            recall: metrics.recall,
            f1: metrics.f1,
        });
        self.reviews(config, results, &predictions);
        Ok(())
    }

    /// The predictions' ids and labels, and the sizes of the splits, against the data.
    fn reviews(
        &mut self,
        config: &ExperimentConfig,
        results: &RunResults,
        predictions: &Predictions,
    ) {
        let data = &config.data;
        let files = [&data.train, &data.test];
        let there = |path: &Path, hash: &str| sha256_file(path).is_ok_and(|found| found == hash);
        if !files.iter().all(|file| there(&file.path, &file.sha256)) {
            self.notes.push("the data are not at hand: labels are not checked".into());
            return;
        }
        let corpus = match Corpus::read(data) {
            Ok(corpus) => corpus,
            Err(error) => return self.differs("data", "reviews", format!("{error:#}")),
        };
        self.same("record.json: train_reviews", corpus.split.train.len(), results.train_reviews);
        let held_out = corpus.split.validation.len();
        self.same("record.json: validation_reviews", held_out, results.validation_reviews);
        for (row, (&review, found)) in corpus.tested.iter().zip(&predictions.rows).enumerate() {
            let expected = &corpus.test[review];
            let seen = corpus.in_training[review];
            if (&expected.id, expected.label, seen) != (&found.id, found.label, found.in_training) {
                // The header is line 1.
                return self.differs(
                    &format!("predictions.tsv:{}", row + 2),
                    format!("review {}, label {}, {}", expected.id, expected.label, u8::from(seen)),
                    format!(
                        "review {}, label {}, {}",
                        found.id,
                        found.label,
                        u8::from(found.in_training)
                    ),
                );
            }
        }
    }

    fn tell(&self) -> Result<()> {
        let run = self.run.display();
        let metrics = self.metrics.as_ref().map_or_else(String::new, |metrics| {
            format!("; accuracy {:.4}, F1 {:.4}", metrics.accuracy, metrics.f1)
        });
        match self.differences.len() {
            0 => print(format_args!("{run}: as it was ({} files{metrics})", self.files))?,
            1 => print(format_args!("{run}: 1 difference"))?,
            several => print(format_args!("{run}: {several} differences"))?,
        }
        for Difference { place, expected, found } in &self.differences {
            print(format_args!("  {place}: expected {expected}, found {found}"))?;
        }
        for note in &self.notes {
            print(format_args!("  not checked: {note}"))?;
        }
        Ok(())
    }
}
