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
    #[error("{path}: {reason}", path = path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and why.
        reason: serde_json::Error,
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

#[cfg(test)]
mod tests {
    use std::error::Error;

    use super::*;

    #[test]
    fn what_is_wrong_with_json_is_told_once() {
        let reason = serde_json::from_str::<usize>("{").unwrap_err();
        let error = EvalError::Json { path: "record.json".into(), reason };
        assert!(error.to_string().starts_with("record.json: "), "{error}");
        // A chain of errors is printed with all its links.
        assert!(error.source().is_none());
    }
}
