use std::io::{Read, Write};
use std::path::Path;

use nsmc_experiment::DataConfig;

use crate::EvalError;

/// What a model said of one review.
#[derive(Clone, Debug, PartialEq)]
pub struct Prediction {
    /// The review's id.
    pub id: String,
    /// The true class.
    pub label: usize,
    /// Whether the same document also stands in the training file.
    pub in_training: bool,
    /// One logit per class.
    pub logits: Vec<f32>,
}

impl Prediction {
    /// The predicted class ([`class_of`]).
    pub fn class(&self) -> usize {
        class_of(&self.logits)
    }
}

/// The class that logits predict: the highest's, the lowest of equals. For want of any, 0.
pub fn class_of(logits: &[f32]) -> usize {
    (1..logits.len()).fold(0, |best, class| if logits[class] > logits[best] { class } else { best })
}

/// The predictions of one run, in the order of the test file.
///
/// Their file is tab-separated: `id`, `label`, `in_training` (0 or 1), `logit_0`, `logit_1`, ... A
/// logit is written with the digits that bring the same `f32` back.
#[derive(Clone, Debug, PartialEq)]
pub struct Predictions {
    /// Number of classes.
    pub num_labels: usize,
    /// In the order of the test file.
    pub rows: Vec<Prediction>,
}

impl Predictions {
    /// Writes the predictions to `writer`.
    pub fn write(&self, writer: impl Write) -> Result<(), EvalError> {
        let mut writer = csv::WriterBuilder::new().delimiter(b'\t').from_writer(writer);
        let logits = (0..self.num_labels).map(|class| format!("logit_{class}"));
        let header = ["id", "label", "in_training"].map(str::to_owned).into_iter().chain(logits);
        writer.write_record(header).map_err(into_io)?;
        for row in &self.rows {
            let fields =
                [row.id.clone(), row.label.to_string(), u8::from(row.in_training).to_string()];
            let logits = row.logits.iter().map(f32::to_string);
            writer.write_record(fields.into_iter().chain(logits)).map_err(into_io)?;
        }
        Ok(writer.flush()?)
    }

    /// Reads a prediction file.
    pub fn read(path: &Path) -> Result<Self, EvalError> {
        Self::parse(fs_err::File::open(path)?, path)
    }

    /// Reads the content of the prediction file at `path`.
    pub(crate) fn parse(content: impl Read, path: &Path) -> Result<Self, EvalError> {
        let mut reader = csv::ReaderBuilder::new().delimiter(b'\t').from_reader(content);
        let line =
            |line: u64, message: String| EvalError::Line { path: path.into(), line, message };
        let header = reader.headers().map_err(|error| line(1, error.to_string()))?.clone();
        let num_labels = header.len().saturating_sub(3);
        let expected = (0..num_labels).map(|class| format!("logit_{class}"));
        let expected: Vec<String> =
            ["id", "label", "in_training"].map(str::to_owned).into_iter().chain(expected).collect();
        if num_labels < 2 || header.iter().ne(expected.iter().map(String::as_str)) {
            let found: Vec<&str> = header.iter().collect();
            return Err(line(
                1,
                format!(
                    "expected the columns id, label, in_training, logit_0, logit_1, ..., found {}",
                    found.join(", ")
                ),
            ));
        }
        if num_labels > DataConfig::MAX_LABELS {
            let most = DataConfig::MAX_LABELS;
            return Err(line(1, format!("expected 2 to {most} classes, found {num_labels}")));
        }
        let mut rows = Vec::new();
        for record in reader.records() {
            let record = record.map_err(|error| {
                let at = error.position().map_or(0, csv::Position::line);
                line(at, error.to_string())
            })?;
            let at = record.position().map_or(0, csv::Position::line);
            let label =
                record[1].parse().ok().filter(|&label| label < num_labels).ok_or_else(|| {
                    line(
                        at,
                        format!("expected a label below {num_labels}, found \"{}\"", &record[1]),
                    )
                })?;
            let in_training = match &record[2] {
                "0" => false,
                "1" => true,
                other => {
                    let message = format!("expected in_training to be 0 or 1, found \"{other}\"");
                    return Err(line(at, message));
                }
            };
            let logits =
                record.iter().skip(3).map(|field| {
                    field.parse().ok().filter(|logit: &f32| logit.is_finite()).ok_or_else(|| {
                        line(at, format!("expected a finite logit, found \"{field}\""))
                    })
                });
            rows.push(Prediction {
                id: record[0].into(),
                label,
                in_training,
                logits: logits.collect::<Result<_, _>>()?,
            });
        }
        if rows.is_empty() {
            return Err(EvalError::Empty { path: path.into() });
        }
        Ok(Self { num_labels, rows })
    }
}

fn into_io(error: csv::Error) -> std::io::Error {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => error,
        kind => std::io::Error::other(format!("{kind:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn predictions() -> Predictions {
        let row = |id: &str, label, in_training, logits: [f32; 2]| Prediction {
            id: id.into(),
            label,
            in_training,
            logits: logits.to_vec(),
        };
        let rows = vec![
            row("9976970", 0, false, [0.1, -2.5e-8]),
            row("with \"quote\"", 1, true, [f32::MIN_POSITIVE, 1.000_000_1]),
            row("", 1, false, [-0.0, 0.0]),
        ];
        Predictions { num_labels: 2, rows }
    }

    fn read(text: &str) -> Result<Predictions, EvalError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("predictions.tsv");
        fs_err::write(&path, text).unwrap();
        Predictions::read(&path)
    }

    #[test]
    fn predictions_survive_being_written_and_read_to_the_last_bit() {
        let mut bytes = Vec::new();
        predictions().write(&mut bytes).unwrap();
        let back = read(std::str::from_utf8(&bytes).unwrap()).unwrap();
        assert_eq!(back, predictions());
        assert_eq!(back.rows[2].logits[0].to_bits(), (-0.0f32).to_bits());
    }

    #[test]
    fn equal_logits_predict_the_lowest_class() {
        assert_eq!(predictions().rows.iter().map(Prediction::class).collect::<Vec<_>>(), [0, 1, 0]);
    }

    #[test]
    fn a_bad_line_is_named() {
        let header = "id\tlabel\tin_training\tlogit_0\tlogit_1\n";
        for (text, expected) in [
            ("id\tlabel\tlogit_0\n".to_owned(), ":1: expected the columns id, label, in_training"),
            (format!("{header}1\t2\t0\t0.5\t0.5\n"), ":2: expected a label below 2, found \"2\""),
            (format!("{header}1\t1\t0\t0.5\tNaN\n"), ":2: expected a finite logit, found \"NaN\""),
            (format!("{header}1\t1\t0\t0.5\t1\n1\t1\n"), ":3: "),
            (format!("{header}1\t1\tyes\t0.5\t1\n"), ":2: expected in_training to be 0 or 1"),
            (header.to_owned(), "no predictions"),
        ] {
            let message = read(&text).unwrap_err().to_string();
            assert!(message.contains(expected), "{expected} is not in {message}");
        }
    }
}
