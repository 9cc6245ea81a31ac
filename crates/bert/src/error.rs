use std::path::PathBuf;

/// Why a checkpoint could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// A file cannot be read or written.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The folder holds no weights under a name that is known.
    #[error(
        "{folder}: no weights: expected model.safetensors or pytorch_model.bin",
        folder = folder.display()
    )]
    NoWeights {
        /// The folder.
        folder: PathBuf,
    },
    /// The folder's weights are in several files.
    #[error(
        "{path}: weights in several files are not implemented: expected model.safetensors or \
         pytorch_model.bin; save the model in one file, in transformers by \
         `save_pretrained(folder, max_shard_size=\"100GB\")`",
        path = path.display()
    )]
    SeveralFiles {
        /// The index of the files.
        path: PathBuf,
    },
    /// `config.json` is not the configuration of a BERT that this crate implements.
    #[error("{path}: {message}", path = path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What was expected and what was found.
        message: String,
    },
    /// The weights file is damaged, or no weights file at all.
    #[error("{path}: cannot read the weights: {message}; is the file complete?", path = path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The reader's reason.
        message: String,
    },
    /// Two of the file's tensors have the same place in the model: which of them trained, their names
    /// do not say.
    #[error(
        "{path}: `{}` and `{}` are two tensors for one place; leave one of them out of the file",
        names[0], names[1],
        path = path.display()
    )]
    TwoForOne {
        /// The file.
        path: PathBuf,
        /// The tensors' names in the file.
        names: [String; 2],
    },
    /// The file's tensors are not the model's.
    #[error("{path}: the tensors do not fit the model{}", describe(missing, surplus, mismatched), path = path.display())]
    Tensors {
        /// The file.
        path: PathBuf,
        /// Tensors that the model needs and the file lacks.
        missing: Vec<String>,
        /// Tensors of the file that the model has no place for.
        surplus: Vec<String>,
        /// Tensors of another shape or kind, or with a value that is not finite, in words.
        mismatched: Vec<String>,
    },
    /// The weights cannot be written.
    #[error("{path}: cannot write the weights: {message}", path = path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The writer's reason.
        message: String,
    },
}

fn describe(missing: &[String], surplus: &[String], mismatched: &[String]) -> String {
    let mut text = String::new();
    for (what, names) in [("missing", missing), ("surplus", surplus), ("mismatched", mismatched)] {
        if !names.is_empty() {
            let shown = names.iter().take(20).map(|name| format!("\n  {name}"));
            text += &format!("\n{what} ({}):{}", names.len(), shown.collect::<String>());
            if names.len() > 20 {
                text += &format!("\n  and {} more", names.len() - 20);
            }
        }
    }
    text
}
