use std::path::PathBuf;

/// Why adapters could not be made, read or written.
#[derive(Debug, thiserror::Error)]
pub enum PeftError {
    /// A file cannot be read or written.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// Tensors cannot be read or do not fit.
    #[error(transparent)]
    Checkpoint(#[from] nsmc_bert::CheckpointError),
    /// A configuration file is damaged, or asks for what is not implemented.
    #[error("{path}: {message}", path = path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What was expected and what was found.
        message: String,
    },
    /// An archive is damaged or unsafe.
    #[error("{path}: {message}", path = path.display())]
    Archive {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// A composition names what is not there, or nests what cannot be nested.
    #[error("`{setup}`: {message}")]
    Composition {
        /// The composition as written.
        setup: String,
        /// What was expected.
        message: String,
    },
    /// A name that cannot be an adapter's.
    #[error(
        "`{0}`: expected an adapter's name: letters, digits, `_` and `-`, and no `/`, `.`, `,` or \
         white space"
    )]
    Name(String),
    /// A name that AdapterHub's library cannot give to an adapter.
    #[error(
        "`{0}`: expected a name that AdapterHub's library can give to an adapter: there adapters are \
         modules of a `torch.nn.ModuleDict`, which has an attribute `{0}` of its own; take another \
         name"
    )]
    AttributeName(String),
    /// An adapter of that name is there already.
    #[error("`{0}`: there is an adapter of this name already; give it another")]
    AdapterTaken(String),
    /// A fusion of these adapters in that order is there already; its name is theirs.
    #[error("`{0}`: there is a fusion of these adapters already")]
    FusionTaken(String),
    /// A model has at most one LoRA.
    #[error("the model has LoRA already; merge it first, or take a model without it")]
    LoraTaken,
    /// The model has what cannot be put into the weights of a BERT.
    #[error("the model cannot be merged into a BERT for classification: {0}")]
    Unmergeable(&'static str),
    /// LoRA's targets match no layer.
    #[error(
        "`target_modules` = {targets}: no layer matches{hint}; the candidates are\n  {}",
        candidates.join("\n  ")
    )]
    NoTarget {
        /// The targets as given.
        targets: String,
        /// What may have been meant.
        hint: String,
        /// Every layer that LoRA can be put on.
        candidates: Vec<String>,
    },
    /// A value that the method cannot work with.
    #[error("`{key}`: {message}")]
    Value {
        /// Which.
        key: &'static str,
        /// What was expected and what was found.
        message: String,
    },
}

impl PeftError {
    /// The error of a value that a file gave: with the file, and under the file's own key.
    pub(crate) fn in_file(self, path: PathBuf, key_in_file: impl Fn(&str) -> &str) -> Self {
        let message = match self {
            Self::Value { key, message } => format!("`{}`: {message}", key_in_file(key)),
            error @ Self::NoTarget { .. } => error.to_string(),
            other => return other,
        };
        Self::Config { path, message }
    }
}

/// Refuses what is no dropout, with which burn would panic. PyTorch takes 1, too, which leaves
/// nothing to train.
pub(crate) fn check_dropout(key: &'static str, dropout: f64) -> Result<(), PeftError> {
    if (0.0..1.0).contains(&dropout) {
        return Ok(());
    }
    let message = format!("expected a number from 0 below 1, found {dropout}");
    Err(PeftError::Value { key, message })
}
