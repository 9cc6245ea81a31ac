//! What an experiment is: its configuration, the grid of runs a profile stands for, and the record
//! a run leaves.
//!
//! Plain data, without burn and without any computation on tensors, so that `xtask` can plan,
//! start and tabulate runs without building a tensor library.
//!
//! A profile ([`Profile`]) is a TOML file in `configs/`. Together with a method file, a seed and
//! `--set key=value` it resolves to an [`ExperimentConfig`], which holds everything that decides a
//! run's result. Every key is known and required: a file with mistakes is refused with all of them
//! at once ([`ConfigError`]).

mod config;
mod document;
mod durable;
mod error;
mod file_lock;
mod grid;
mod inputs;
mod library_names;
mod manifest;
mod method;
mod model_lock;
mod numerics;
mod pretraining;
mod profile;
mod progress;
mod provenance;
mod reader;
mod record;

pub use config::{
    DataConfig, DataFile, EvaluationConfig, ExperimentConfig, ModelConfig, Optimizer, Precision,
    Rows, ScratchModel, Selection, TrainingConfig,
};
pub use document::Document;
pub use durable::{
    create_folder_durably, read_sealed, rename_folder_durably, seal, sha256_folder, sync_entries,
    sync_folder, write_durably,
};
pub use error::{ConfigError, Origin, Problem};
pub use file_lock::{FileLock, knows_no_locks};
pub use grid::{Cell, Trials};
pub use inputs::{WeightsKind, combined_sha256};
pub use manifest::{
    AdapterEntry, DatasetEntry, DatasetManifest, FileEntry, ModelEntry, ModelManifest, RawEntry,
};
pub use method::{
    AdapterConfig, AdapterFusionMethod, AdapterKind, AdapterMethod, AdapterTraining, FusionKind,
    Head, HeadOnlyMethod, LoraBias, LoraMethod, MethodConfig, MethodKind, NonLinearity, Part,
    Source, Targets, TfidfMethod, setup_names,
};
pub use model_lock::{LockedModel, ModelLock};
pub use pretraining::{
    CorpusConfig, PretrainingConfig, PretrainingEvaluation, PretrainingOptimizer, PretrainingRecipe,
};
pub use profile::{Catalog, Profile};
pub use progress::ProgressEvent;
pub use provenance::{Provenance, Stretch};
pub use record::{
    CUDA_GPU, EpochRecord, FusionAttention, FusionPlace, RunRecord, RunResults, RunStatus,
    StageRecord, gpus, is_of_pretraining,
};

use std::cell::RefCell;
use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// The sha256 of a file as 64 lowercase hex digits, read in pieces.
pub fn sha256_file(path: &Path) -> std::io::Result<String> {
    let mut file = fs_err::File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex(&hasher.finalize())),
            read => hasher.update(&buffer[..read]),
        }
    }
}

/// sha256 of files that are asked for again and again, for instance by each run of a grid: each file
/// is read once.
#[derive(Debug, Default)]
pub struct FileHashes(RefCell<HashMap<PathBuf, String>>);

impl FileHashes {
    /// [`sha256_file`] as it was when the file was first asked for.
    pub fn sha256(&self, path: &Path) -> std::io::Result<String> {
        if let Some(hash) = self.0.borrow().get(path) {
            return Ok(hash.clone());
        }
        let hash = sha256_file(path)?;
        self.0.borrow_mut().insert(path.into(), hash.clone());
        Ok(hash)
    }
}

/// What git, and the Hugging Face hub, calls a file: the SHA-1 of `blob LENGTH\0` and its content.
pub fn git_blob_sha1(path: &Path) -> std::io::Result<String> {
    let content = fs_err::read(path)?;
    let header = format!("blob {}\0", content.len());
    let digest = sha1::Sha1::new().chain_update(header).chain_update(content).finalize();
    Ok(hex(&digest))
}

/// Whether a text is a sha256 as this project writes them: 64 lowercase hex digits.
pub fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// The sha256 of `bytes` as 64 lowercase hex digits.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
