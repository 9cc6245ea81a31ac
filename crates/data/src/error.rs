use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Why data could not be used.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// A file cannot be read or written.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// A line is not what the format asks for.
    #[error("{path}:{line}: {message}", path = path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What was expected and what was found.
        message: String,
    },
    /// Several lines are not what the format asks for.
    #[error("{path}:{line}: {message} ({})", others(*more, next), path = path.display())]
    Lines {
        /// The file.
        path: PathBuf,
        /// The first of the lines, from 1.
        line: usize,
        /// What was expected and what was found in the first.
        message: String,
        /// How many lines there are beside it.
        more: usize,
        /// The first few of these.
        next: Vec<usize>,
    },
    /// The file as a whole is not what it should be.
    #[error("{path}: {message}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What was expected and what was found.
        message: String,
    },
    /// An entry of an archive is not what it should be.
    #[error("{archive}: {entry}: {message}", archive = archive.display())]
    Entry {
        /// The archive.
        archive: PathBuf,
        /// The entry's path in the archive.
        entry: String,
        /// What was expected and what was found.
        message: String,
    },
    /// A vocabulary cannot be trained on by masking.
    #[error("the vocabulary {message}")]
    Vocabulary {
        /// What it lacks.
        message: String,
    },
    /// A review does not fit into a batch.
    #[error("review {id} has {tokens} tokens, but a batch at most {budget}")]
    Budget {
        /// The review.
        id: String,
        /// Its tokens.
        tokens: usize,
        /// The most tokens of a batch.
        budget: usize,
    },
    /// More reviews are asked for than there are.
    #[error("expected a size of at most {available} {what}, found {wanted}")]
    Size {
        /// What is counted.
        what: &'static str,
        /// How many there are.
        available: usize,
        /// How many were asked for.
        wanted: usize,
    },
    /// No review is asked for.
    #[error("expected a size of at least 1, found 0: there would be no {what}")]
    NoSize {
        /// What is counted.
        what: &'static str,
    },
    /// The tokenizer refused its files or a text.
    #[error("{context}: {reason}")]
    Tokenizer {
        /// What was being done.
        context: String,
        /// The library's own.
        reason: tokenizers::Error,
    },
}

fn others(more: usize, next: &[usize]) -> String {
    let mut places: Vec<String> = next.iter().map(usize::to_string).collect();
    if next.len() < more {
        places.push("…".into());
    }
    let are = if more == 1 { "line is" } else { "lines are" };
    format!("{more} more {are} wrong: {}", places.join(", "))
}

/// The lines of a file that are wrong, added in any order.
///
/// It holds no more than is told, however many there are.
#[derive(Default)]
pub(crate) struct BadLines {
    lowest: BTreeMap<usize, String>,
    count: usize,
}

impl BadLines {
    /// How many lines are named.
    const NAMED: usize = 6;

    /// Adds a line. One that is held keeps its message.
    pub(crate) fn add(&mut self, line: usize, message: impl FnOnce() -> String) {
        if self.lowest.contains_key(&line) {
            return;
        }
        self.count += 1;
        let full = self.lowest.len() == Self::NAMED;
        if full && self.lowest.last_key_value().is_some_and(|(&last, _)| last < line) {
            return;
        }
        self.lowest.insert(line, message());
        if full {
            self.lowest.pop_last();
        }
    }

    /// Says at `line` what made the row that starts at `row` wrong, unless a row above is wrong.
    pub(crate) fn explain(&mut self, row: usize, line: usize, message: impl FnOnce() -> String) {
        if self.lowest.first_key_value().is_none_or(|(&first, _)| first < row) {
            return;
        }
        if self.lowest.remove(&row).is_some() {
            self.count -= 1;
        }
        self.add(line, message);
    }

    /// An error if a line was added: the first with its message, and where the others are.
    pub(crate) fn check(mut self, path: &Path) -> Result<(), DataError> {
        let Some((line, message)) = self.lowest.pop_first() else { return Ok(()) };
        let (path, more) = (path.into(), self.count - 1);
        Err(match more {
            0 => DataError::Line { path, line, message },
            _ => {
                let next = self.lowest.into_keys().collect();
                DataError::Lines { path, line, message, more, next }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use super::*;

    #[test]
    fn a_librarys_reason_is_told_once() {
        let error = DataError::Tokenizer { context: "vocab.txt".into(), reason: "bad".into() };
        assert_eq!(error.to_string(), "vocab.txt: bad");
        // A chain of errors is printed with all its links.
        assert!(error.source().is_none());
    }

    #[test]
    fn the_first_bad_line_is_told_and_how_many_more_there_are() {
        let wrong = |lines: &[usize]| {
            let mut wrong = BadLines::default();
            for &line in lines {
                wrong.add(line, || format!("bad {line}"));
            }
            assert!(wrong.lowest.len() <= BadLines::NAMED);
            wrong
        };
        let told = |wrong: BadLines| wrong.check(Path::new("a.csv")).unwrap_err().to_string();
        wrong(&[]).check(Path::new("a.csv")).unwrap();
        assert_eq!(told(wrong(&[5])), "a.csv:5: bad 5");
        assert_eq!(told(wrong(&[9, 5, 9])), "a.csv:5: bad 5 (1 more line is wrong: 9)");
        let six = [30, 5, 9, 20, 7, 13];
        let expected = "a.csv:5: bad 5 (5 more lines are wrong: 7, 9, 13, 20, 30)";
        assert_eq!(told(wrong(&six)), expected);
        let many: Vec<usize> = (100..123).chain(six).collect();
        let expected = "a.csv:5: bad 5 (28 more lines are wrong: 7, 9, 13, 20, 30, …)";
        assert_eq!(told(wrong(&many)), expected);

        let explained = |row, line| {
            let mut wrong = wrong(&[5, 9]);
            wrong.explain(row, line, || "cause".into());
            told(wrong)
        };
        assert_eq!(explained(5, 6), "a.csv:6: cause (1 more line is wrong: 9)");
        assert_eq!(explained(3, 3), "a.csv:3: cause (2 more lines are wrong: 5, 9)");
        assert_eq!(explained(9, 9), "a.csv:5: bad 5 (1 more line is wrong: 9)");
    }
}
