use std::path::PathBuf;

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
    /// polars could not read what passed the checks.
    #[error("{path}: {}", cause(reason), path = path.display())]
    Polars {
        /// The file.
        path: PathBuf,
        /// polars' own.
        reason: polars::error::PolarsError,
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

/// Without polars' advice, which is for its callers.
fn cause(reason: &polars::error::PolarsError) -> String {
    reason.to_string().lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use super::*;

    #[test]
    fn a_librarys_reason_is_told_once_and_without_advice_to_its_callers() {
        let path = PathBuf::from("reviews.csv");
        let reason =
            polars::error::PolarsError::ComputeError("bad\n\nYou might want to try".into());
        let polars = DataError::Polars { path, reason };
        let tokenizer = DataError::Tokenizer { context: "vocab.txt".into(), reason: "bad".into() };
        for (error, expected) in [(polars, "reviews.csv: bad"), (tokenizer, "vocab.txt: bad")] {
            assert_eq!(error.to_string(), expected);
            // A chain of errors is printed with all its links.
            assert!(error.source().is_none());
        }
    }
}
