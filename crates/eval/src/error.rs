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
    /// The parts of a file, or of files that belong together, do not fit each other.
    #[error("{path}: {message}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What was expected and what was found.
        message: String,
    },
    /// A plan puts runs together that are not seeds of one configuration.
    #[error(
        "the plan of {profile} has {} and {} as seeds of one configuration, but they differ in more",
        runs[0], runs[1]
    )]
    Cell {
        /// The plan's profile.
        profile: String,
        /// Two of the runs.
        runs: [String; 2],
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
