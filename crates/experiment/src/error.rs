use std::fmt;
use std::path::PathBuf;

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error(transparent)]
    Read(#[from] std::io::Error),
    /// The file is no TOML.
    #[error("{path}: not valid TOML: {reason}", path = path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and why.
        reason: String,
    },
    /// A `--set` argument is not of the form `key=value`.
    #[error("`--set {0}`: expected `key=value`, for instance `--set training.learning_rate=5e-5`")]
    Override(String),
    /// The file is TOML, but not a valid configuration.
    #[error("{}", list(.0))]
    Problems(Vec<Problem>),
}

/// One mistake in a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where it stands.
    pub origin: Origin,
    /// The dotted key, for instance `training.learning_rate`.
    pub key: String,
    /// What was expected, what was found and what to do.
    pub message: String,
}

/// Where a configuration value came from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// A line of a file.
    File {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// A `--set key=value` (or `--seed`) argument.
    Argument(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Argument(argument) => write!(f, "{argument}"),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: `{}`: {}", self.origin, self.key, self.message)
    }
}

fn list(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(Problem::to_string).collect();
    match lines.as_slice() {
        [line] => line.clone(),
        lines => format!("{} mistakes\n{}", lines.len(), lines.join("\n")),
    }
}
