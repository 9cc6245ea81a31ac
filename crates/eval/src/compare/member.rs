use std::collections::HashMap;
use std::path::Path;

use super::{CompareError, Ids};
use crate::{EvalError, Prediction, Predictions};

/// The predictions of one trained model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// What errors call it: its run or file.
    pub name: String,
    /// Its seed, if known.
    pub seed: Option<u64>,
    /// In any order.
    pub outcomes: Vec<Outcome>,
}

/// The true and the predicted class of one review.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The review's id.
    pub id: String,
    /// The true class.
    pub label: usize,
    /// The predicted class.
    pub class: usize,
}

impl Member {
    /// Reads predictions: those a run left, or a file made elsewhere.
    ///
    /// The latter has a header with the columns `id`, `label` and `prediction`, in any order and
    /// among others, separated by tabs if the header has any and by commas otherwise. Classes are
    /// numbers from 0.
    pub fn read(path: &Path, seed: Option<u64>) -> Result<Self, EvalError> {
        let bytes = fs_err::read(path)?;
        let line =
            |line: u64, message: String| EvalError::Line { path: path.into(), line, message };
        let text = std::str::from_utf8(&bytes).map_err(|error| {
            let place = bytes[..error.valid_up_to()].split(|&byte| byte == b'\n').count();
            let message = format!(
                "not valid UTF-8; it may be CP949 (EUC-KR): `iconv -f CP949 -t UTF-8 {} > NEW`",
                path.display()
            );
            line(place as u64, message)
        })?;
        // As the reader does, which passes over empty lines.
        let header = text.lines().find(|line| !line.is_empty()).unwrap_or_default();
        let delimiter = if header.contains('\t') { b'\t' } else { b',' };
        let mut reader =
            csv::ReaderBuilder::new().delimiter(delimiter).from_reader(text.as_bytes());
        let header = reader.headers().map_err(|error| line(1, error.to_string()))?.clone();
        let column = |name| header.iter().position(|found| found == name);
        let of_a_run = column("logit_0").is_some() && column("prediction").is_none();
        let outcomes: Vec<Outcome> = if of_a_run {
            let row =
                |row: Prediction| Outcome { class: row.class(), label: row.label, id: row.id };
            Predictions::read(path)?.rows.into_iter().map(row).collect()
        } else {
            let (Some(id), Some(label), Some(prediction)) =
                (column("id"), column("label"), column("prediction"))
            else {
                let found: Vec<&str> = header.iter().collect();
                let expected = "expected the columns id, label and prediction, or a run's own";
                return Err(line(1, format!("{expected}, found {}", found.join(", "))));
            };
            // Which of them is meant nobody but the file's author knows.
            for name in ["id", "label", "prediction"] {
                let count = header.iter().filter(|found| *found == name).count();
                if count > 1 {
                    let expected = format!("expected one column {name}, found {count}");
                    return Err(line(
                        1,
                        format!("{expected}: rename all but the one that is meant"),
                    ));
                }
            }
            let outcome = |record: Result<csv::StringRecord, csv::Error>| {
                let at = |position: Option<&csv::Position>| position.map_or(0, csv::Position::line);
                let record =
                    record.map_err(|error| line(at(error.position()), error.to_string()))?;
                let class = |name: &str, field: usize| {
                    record[field].parse().map_err(|_| {
                        let found = &record[field];
                        let message = format!(
                            "expected {name} to be 0, 1, ..., a class's place in `data.labels`, found \
                             \"{found}\""
                        );
                        line(at(record.position()), message)
                    })
                };
                let (label, class) = (class("label", label)?, class("prediction", prediction)?);
                Ok(Outcome { id: record[id].into(), label, class })
            };
            reader.records().map(outcome).collect::<Result<_, EvalError>>()?
        };
        if outcomes.is_empty() {
            return Err(EvalError::Empty { path: path.into() });
        }
        Ok(Self { name: path.display().to_string(), seed, outcomes })
    }

    /// Its outcomes by the reviews' ids.
    pub(super) fn by_id(&self) -> Result<HashMap<&str, &Outcome>, CompareError> {
        let mut by_id = HashMap::with_capacity(self.outcomes.len());
        let mut twice = Vec::new();
        for outcome in &self.outcomes {
            twice.extend(by_id.insert(outcome.id.as_str(), outcome));
        }
        match ids(twice.into_iter()) {
            Some(ids) => Err(CompareError::Duplicate { member: self.name.clone(), ids }),
            None => Ok(by_id),
        }
    }
}

/// The ids of these reviews; none if there are no reviews.
pub(super) fn ids<'a>(outcomes: impl Iterator<Item = &'a Outcome>) -> Option<Ids> {
    let ids: Vec<String> = outcomes.map(|outcome| outcome.id.clone()).collect();
    (!ids.is_empty()).then_some(Ids(ids))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_made_elsewhere_and_files_of_runs_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("predictions");
        let read = |text: &str| {
            fs_err::write(&path, text).unwrap();
            Member::read(&path, None).map(|member| member.outcomes)
        };
        let outcome = |id: &str, label, class| Outcome { id: id.into(), label, class };
        let expected = [outcome("7", 1, 0), outcome("a,b", 0, 0)];
        for text in [
            "prediction,id,label,score,score\r\n0,7,1,0.4,1\r\n0,\"a,b\",0,0.1,2\r\n",
            "\u{feff}id\tlabel\tprediction\n7\t1\t0\na,b\t0\t0\n",
            "id\tlabel\tin_training\tlogit_0\tlogit_1\n7\t1\t0\t0.2\t0.1\na,b\t0\t1\t2\t1\n",
            "\n\r\nid\tlabel\tprediction\n\n7\t1\t0\na,b\t0\t0\n",
        ] {
            assert_eq!(read(text).unwrap(), expected, "{text}");
        }
        for (text, expected) in [
            (
                "id,label\n1,0\n",
                ":1: expected the columns id, label and prediction, or a run's own",
            ),
            (
                "id,label,prediction,prediction\n1,0,0,1\n",
                ":1: expected one column prediction, found 2: rename all but",
            ),
            ("id\tid\tlabel\tprediction\tid\n", ":1: expected one column id, found 3"),
            ("id,label,prediction\n1,0,0\n2,0,yes\n", ":3: expected prediction to be 0, 1, ..., "),
            (
                "id,label,prediction\n1,-1,0\n",
                ":2: expected label to be 0, 1, ..., a class's place in `data.labels`, found \"-1\"",
            ),
            ("id,label,prediction\n1,0\n", ":2: "),
            ("id,label,prediction\n", "no predictions"),
            ("", "expected the columns"),
        ] {
            let message = read(text).unwrap_err().to_string();
            assert!(message.contains(expected), "{expected} is not in {message}");
        }
        fs_err::write(&path, b"id,label,prediction,text\n1,0,0,\xba\xb0\xb7\xce\n").unwrap();
        let message = Member::read(&path, None).unwrap_err().to_string();
        assert!(
            message.contains(":2: not valid UTF-8; it may be CP949 (EUC-KR): `iconv"),
            "{message}"
        );
    }
}
