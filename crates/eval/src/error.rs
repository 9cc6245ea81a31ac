use std::path::PathBuf;

/// Why predictions could not be used.
#[derive(Debug, thiserror::Error)]
pub enum EvalError {
    /// A file cannot be read or written.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// A line of a prediction file is not one.
    #[error("{path}:{line}: {message}", path = path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// What was expected and what was found.
        message: String,
    },
    /// A file is not what it should be.
    #[error("{path}: {source}", path = path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// A statistic could not be computed.
    #[error(transparent)]
    Statistics(#[from] crate::statistics::StatisticsError),
    /// There is nothing to compute a metric from.
    #[error("{path}: no predictions", path = path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
}
