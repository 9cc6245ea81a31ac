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
    #[error("{path}: {source}", path = path.display())]
    Polars {
        /// The file.
        path: PathBuf,
        /// polars' reason.
        source: polars::error::PolarsError,
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
    #[error("{context}: {source}")]
    Tokenizer {
        /// What was being done.
        context: String,
        /// The library's reason.
        source: tokenizers::Error,
    },
}
