use std::collections::HashMap;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;

use flate2::read::GzDecoder;
use flate2::{Compression, GzBuilder};
use nsmc_experiment::{sha256_hex, write_durably};

use crate::{EvalError, Prediction, Predictions};

/// The reviews that runs were tested on, in the order of the test file.
///
/// Kept once for all runs of a profile: gzip of a tab-separated file with the columns `id`, `label`
/// and `in_training` (0 or 1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestSet {
    /// The reviews' ids.
    pub ids: Vec<String>,
    /// The true classes.
    pub labels: Vec<usize>,
    /// Whether the same document also stands in the training file.
    pub in_training: Vec<bool>,
}

/// What a run said of a review.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The predicted class.
    pub class: usize,
    /// The softmax probability of that class, in ten-thousandths.
    pub confidence: u16,
}

/// What a run said of each review of its test set.
///
/// A small stand-in for [`Predictions`]: classes are exact, and so is every metric made of them;
/// probabilities are rounded to four digits. Its file is gzip of a tab-separated one with the columns
/// `class` and `confidence`, a line per review of the test set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answers {
    /// The reviews.
    pub test: Arc<TestSet>,
    /// One answer per review.
    pub answers: Vec<Answer>,
}

/// The whole of a confidence: probability 1.
const ONE: f64 = 10_000.0;

/// Most that a file may unpack to: a hundred times NSMC's test set.
const MAX_BYTES: u64 = 64 << 20;

impl Answer {
    /// The predicted class and its softmax probability, 1 / Σⱼ exp(lⱼ − l).
    fn of(prediction: &Prediction) -> Self {
        let class = prediction.class();
        let highest = f64::from(prediction.logits[class]);
        let sum: f64 =
            prediction.logits.iter().map(|&logit| (f64::from(logit) - highest).exp()).sum();
        Self { class, confidence: (ONE / sum).round() as u16 }
    }

    /// The confidence as a share.
    pub fn probability(self) -> f64 {
        f64::from(self.confidence) / ONE
    }
}

impl TestSet {
    /// The reviews that `predictions` are about.
    pub fn of(predictions: &Predictions) -> Self {
        let rows = &predictions.rows;
        Self {
            ids: rows.iter().map(|row| row.id.clone()).collect(),
            labels: rows.iter().map(|row| row.label).collect(),
            in_training: rows.iter().map(|row| row.in_training).collect(),
        }
    }

    /// Number of reviews.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there are no reviews.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// sha256 of the reviews and their labels: equal for equal test sets.
    pub fn sha256(&self) -> String {
        sha256_hex(&self.to_tsv())
    }

    /// The share of the most frequent class: what a model reaches that always answers it.
    pub fn majority_share(&self) -> f64 {
        let mut counts: HashMap<usize, usize> = HashMap::new();
        for &label in &self.labels {
            *counts.entry(label).or_default() += 1;
        }
        counts.into_values().max().unwrap_or(0) as f64 / self.len().max(1) as f64
    }

    /// Writes the file; it appears whole or not at all.
    pub fn write(&self, path: &Path) -> Result<(), EvalError> {
        write_gzip(path, &self.to_tsv())
    }

    /// Reads the file.
    pub fn read(path: &Path) -> Result<Self, EvalError> {
        let mut test = Self { ids: vec![], labels: vec![], in_training: vec![] };
        read_tsv(path, &["id", "label", "in_training"], |row| {
            test.ids.push(row[0].to_owned());
            test.labels.push(number(&row[1], "label", usize::MAX)?);
            test.in_training.push(number(&row[2], "in_training", 1)? == 1);
            Ok(())
        })?;
        if test.is_empty() {
            return Err(EvalError::Empty { path: path.into() });
        }
        Ok(test)
    }

    fn to_tsv(&self) -> Vec<u8> {
        let rows = self.ids.iter().zip(&self.labels).zip(&self.in_training);
        to_tsv(
            ["id", "label", "in_training"],
            rows.map(|((id, label), seen)| {
                [id.clone(), label.to_string(), u8::from(*seen).to_string()]
            }),
        )
    }
}

impl Answers {
    /// The answers that predictions stand for; `test` is the set they are about.
    pub fn of(predictions: &Predictions, test: Arc<TestSet>) -> Self {
        Self { test, answers: predictions.rows.iter().map(Answer::of).collect() }
    }

    /// Whether each review was predicted rightly.
    pub fn right(&self) -> Vec<bool> {
        let pairs = self.answers.iter().zip(&self.test.labels);
        pairs.map(|(answer, &label)| answer.class == label).collect()
    }

    /// Writes the file; it appears whole or not at all.
    pub fn write(&self, path: &Path) -> Result<(), EvalError> {
        let rows = self.answers.iter();
        let rows = rows.map(|answer| [answer.class.to_string(), answer.confidence.to_string()]);
        write_gzip(path, &to_tsv(["class", "confidence"], rows))
    }

    /// Reads the file; an error unless it answers each review of `test` with one of `num_labels`
    /// classes.
    pub fn read(path: &Path, test: Arc<TestSet>, num_labels: usize) -> Result<Self, EvalError> {
        if let Some(at) = test.labels.iter().position(|&label| label >= num_labels) {
            let found = test.labels[at];
            let message =
                format!("expected labels below {num_labels} in its test set, found {found}");
            return Err(EvalError::File { path: path.into(), message });
        }
        let mut answers = Vec::with_capacity(test.len());
        let lines = read_tsv(path, &["class", "confidence"], |row| {
            let class = number(&row[0], "class", num_labels - 1)?;
            let confidence = number(&row[1], "confidence", ONE as usize)? as u16;
            answers.push(Answer { class, confidence });
            Ok(())
        })?;
        if answers.len() != test.len() {
            let (expected, found) = (test.len(), answers.len());
            let message =
                format!("expected {expected} answers, one per test review, found {found}");
            return Err(EvalError::Line { path: path.into(), line: lines, message });
        }
        Ok(Self { test, answers })
    }
}

fn number(text: &str, name: &str, highest: usize) -> Result<usize, String> {
    let value: Option<usize> = text.parse().ok().filter(|&value| value <= highest);
    let upper = if highest == usize::MAX { "...".into() } else { format!("..., {highest}") };
    value.ok_or_else(|| format!("expected {name} to be 0, {upper}, found \"{text}\""))
}

fn to_tsv<const N: usize>(header: [&str; N], rows: impl Iterator<Item = [String; N]>) -> Vec<u8> {
    let mut writer = csv::WriterBuilder::new().delimiter(b'\t').from_writer(Vec::new());
    let records = std::iter::once(header.map(str::to_owned)).chain(rows);
    for record in records {
        writer.write_record(record).expect("rows of one length fit into memory");
    }
    writer.into_inner().expect("memory takes what is written")
}

/// Calls `each` for every row; gives the number of lines.
fn read_tsv(
    path: &Path,
    header: &[&str],
    mut each: impl FnMut(&csv::StringRecord) -> Result<(), String>,
) -> Result<u64, EvalError> {
    let line = |line: u64, message: String| EvalError::Line { path: path.into(), line, message };
    let refuse = |message: String| EvalError::File { path: path.into(), message };
    let mut text = Vec::new();
    GzDecoder::new(fs_err::File::open(path)?)
        .take(MAX_BYTES + 1)
        .read_to_end(&mut text)
        .map_err(|error| refuse(format!("not a gzip file: {error}")))?;
    if text.len() as u64 > MAX_BYTES {
        return Err(refuse(format!("it unpacks to more than {} MiB", MAX_BYTES >> 20)));
    }
    let mut reader = csv::ReaderBuilder::new().delimiter(b'\t').from_reader(text.as_slice());
    let found = reader.headers().map_err(|error| line(1, error.to_string()))?;
    if found.iter().ne(header.iter().copied()) {
        let message = format!("expected the columns {}", header.join(", "));
        return Err(line(1, message));
    }
    let mut lines = 1;
    for record in reader.records() {
        let at = |position: Option<&csv::Position>| position.map_or(0, csv::Position::line);
        let record = record.map_err(|error| line(at(error.position()), error.to_string()))?;
        lines = at(record.position());
        each(&record).map_err(|message| line(lines, message))?;
    }
    Ok(lines)
}

/// The same bytes for the same content: the archive holds no time.
fn write_gzip(path: &Path, content: &[u8]) -> Result<(), EvalError> {
    let mut encoder = GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
    encoder.write_all(content)?;
    Ok(write_durably(path, encoder.finish()?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prediction(id: &str, logits: &[f32]) -> Prediction {
        Prediction { id: id.into(), label: 1, in_training: id == "a", logits: logits.to_vec() }
    }

    #[test]
    fn files_bring_back_classes_and_probabilities() {
        // softmax of (0, 2): e²/(1 + e²) = 0.880797; of a near tie 0.5 and the lower class.
        let rows = vec![
            prediction("a", &[0.0, 2.0]),
            prediction("two\twords \"quoted\"", &[1.0, 1.0]),
            prediction("c", &[0.0, 1e-6]),
        ];
        let predictions = Predictions { num_labels: 2, rows };
        let test = Arc::new(TestSet::of(&predictions));
        let answers = Answers::of(&predictions, test.clone());
        let expected = [(1, 8808), (0, 5000), (1, 5000)];
        let expected = expected.map(|(class, confidence)| Answer { class, confidence });
        assert_eq!(answers.answers, expected);
        assert_eq!(answers.right(), [true, false, true]);

        let folder = tempfile::tempdir().unwrap();
        let (first, second) = (folder.path().join("test.tsv.gz"), folder.path().join("run.tsv.gz"));
        test.write(&first).unwrap();
        answers.write(&second).unwrap();
        let back = Arc::new(TestSet::read(&first).unwrap());
        assert_eq!((&back, back.sha256()), (&test, test.sha256()));
        assert_eq!(Answers::read(&second, back, 2).unwrap(), answers);
        let bytes = fs_err::read(&second).unwrap();
        answers.write(&second).unwrap();
        assert_eq!(fs_err::read(&second).unwrap(), bytes, "the file holds no time");
        assert!(!folder.path().join("run.tsv.gz.partial").exists());
    }

    #[test]
    fn ten_thousand_reviews_take_forty_kilobytes_at_most() {
        // Confidences as spread as they can be: 0.5 to 1 evenly, from a fixed generator.
        let mut state = 1_u64;
        let rows = (0..10_000).map(|id| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let logit = (state >> 40) as f32 / (1 << 24) as f32 * 12.0 - 6.0;
            prediction(&id.to_string(), &[0.0, logit])
        });
        let predictions = Predictions { num_labels: 2, rows: rows.collect() };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.tsv.gz");
        Answers::of(&predictions, Arc::new(TestSet::of(&predictions))).write(&path).unwrap();
        let size = fs_err::metadata(&path).unwrap().len();
        assert!(size < 40_000, "{size} bytes");
    }

    #[test]
    fn a_bad_file_is_named_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.tsv.gz");
        let test = TestSet { ids: vec!["a".into()], labels: vec![0], in_training: vec![false] };
        let test = Arc::new(test);
        for (text, expected) in [
            ("class\tconfidence\n2\t9000\n", ":2: expected class to be 0, ..., 1, found \"2\""),
            ("class\tconfidence\n1\t10001\n", ":2: expected confidence to be 0, ..., 10000"),
            (
                "class\tconfidence\n1\t9000\n0\t1\n",
                "expected 1 answers, one per test review, found 2",
            ),
            ("class\n1\n", ":1: expected the columns class, confidence"),
        ] {
            write_gzip(&path, text.as_bytes()).unwrap();
            let message = Answers::read(&path, test.clone(), 2).unwrap_err().to_string();
            assert!(message.contains(expected), "{expected} is not in {message}");
        }
        fs_err::write(&path, "class\tconfidence\n").unwrap();
        let message = Answers::read(&path, test, 2).unwrap_err().to_string();
        assert!(message.contains("not a gzip file"), "{message}");
    }

    #[test]
    fn the_majority_share_is_that_of_the_most_frequent_class() {
        let labels = vec![0, 2, 2, 1, 2];
        let ids = (0..5).map(|id| id.to_string()).collect();
        let test = TestSet { ids, labels, in_training: vec![false; 5] };
        assert!((test.majority_share() - 0.6).abs() < 1e-12);
    }
}
