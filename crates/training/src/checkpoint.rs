use std::path::{Path, PathBuf};

use burn::optim::ModuleOptimizer;
use burn::store::{ModuleRecord, RecordError};
use nsmc_experiment::sha256_file;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::TrainingError;

const WEIGHTS: &str = "weights.bpk";
const OPTIMIZER: &str = "optimizer.bpk";
// TOML, for serde_json reads a float back to within its last bit alone.
const STATE: &str = "state.toml";
/// The checkpoint before the learning rate fell: a longer training goes on from there.
const STABLE: &str = "stable";
/// How many others are kept.
const KEPT: usize = 2;

/// How long a training is, and from which step on its learning rate depends on that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Schedule {
    pub(crate) num_train_steps: usize,
    pub(crate) decay_start: usize,
}

/// `state.toml`: where a training stands, which one it is, and what the other files must hold.
#[derive(Serialize, Deserialize)]
struct Manifest<S> {
    identity: String,
    schedule: Schedule,
    /// Steps done.
    step: usize,
    state: S,
    weights_sha256: String,
    optimizer_sha256: String,
}

/// What a checkpoint brings back.
pub(crate) struct Loaded<S> {
    pub(crate) weights: ModuleRecord,
    pub(crate) optimizer: ModuleOptimizer,
    pub(crate) state: S,
}

/// The checkpoints to go on from, `step-N/` in a folder: the last two.
pub(crate) struct Checkpoints {
    folder: PathBuf,
    identity: String,
    schedule: Schedule,
}

impl Checkpoints {
    /// Those of the training of an identity: no other goes on from them.
    pub(crate) fn new(folder: PathBuf, identity: String, schedule: Schedule) -> Self {
        Self { folder, identity, schedule }
    }

    /// Writes a checkpoint, which appears whole or not at all, and removes older ones. The one at
    /// the start of the decay is also kept by itself.
    pub(crate) fn save<S: Serialize>(
        &self,
        weights: ModuleRecord,
        optimizer: &ModuleOptimizer,
        step: usize,
        state: &S,
    ) -> Result<(), TrainingError> {
        let incoming = self.folder.join("incoming");
        make(&self.folder)?;
        remove(&incoming)?;
        make(&incoming)?;
        weights.save(incoming.join(WEIGHTS)).map_err(|error| record(&incoming, &error))?;
        optimizer.save(incoming.join(OPTIMIZER)).map_err(|error| record(&incoming, &error))?;
        let manifest = Manifest {
            identity: self.identity.clone(),
            schedule: self.schedule,
            step,
            state,
            weights_sha256: sha256_file(&incoming.join(WEIGHTS))?,
            optimizer_sha256: sha256_file(&incoming.join(OPTIMIZER))?,
        };
        let text = toml::to_string(&manifest).expect("a state is representable in TOML");
        fs_err::write(incoming.join(STATE), text)?;
        // After a power failure a file that was not synced may be empty under its name.
        for file in [WEIGHTS, OPTIMIZER, STATE] {
            fs_err::File::open(incoming.join(file))?.sync_all()?;
        }
        if step == self.schedule.decay_start {
            let target = self.folder.join(STABLE);
            remove(&target)?;
            make(&target)?;
            for file in [WEIGHTS, OPTIMIZER, STATE] {
                fs_err::copy(incoming.join(file), target.join(file))?;
            }
        }
        let target = self.folder.join(format!("step-{step}"));
        remove(&target)?;
        fs_err::rename(&incoming, &target)?;
        let steps = self.steps()?;
        for (_, folder) in steps.iter().rev().skip(KEPT) {
            fs_err::remove_dir_all(folder)?;
        }
        Ok(())
    }

    /// The newest checkpoint that is whole; `optimizer` makes one as it was before.
    ///
    /// One from within the decay of the learning rate is of use only to the same schedule; to a
    /// longer one, the stable one is.
    pub(crate) fn load<S: DeserializeOwned>(
        &self,
        optimizer: impl Fn() -> ModuleOptimizer,
    ) -> Result<Option<Loaded<S>>, TrainingError> {
        let mut candidates: Vec<PathBuf> =
            self.steps()?.into_iter().rev().map(|(_, folder)| folder).collect();
        candidates.push(self.folder.join(STABLE));
        for folder in candidates {
            let Some(manifest) = read::<S>(&folder)? else { continue };
            if manifest.identity != self.identity {
                return Err(TrainingError::Record {
                    path: folder,
                    message: "it is of a training with another configuration; give another \
                              directory with `--out`"
                        .into(),
                });
            }
            let same = manifest.schedule == self.schedule;
            let decay_start = manifest.schedule.decay_start.min(self.schedule.decay_start);
            if !same && manifest.step > decay_start {
                continue;
            }
            let weights = ModuleRecord::load(folder.join(WEIGHTS))
                .map_err(|error| record(&folder, &error))?;
            let optimizer = optimizer()
                .load(folder.join(OPTIMIZER))
                .map_err(|error| record(&folder, &error))?;
            // What lies ahead is of another schedule or damaged, and would be taken for newer.
            for (_, ahead) in self.steps()?.into_iter().filter(|(step, _)| *step > manifest.step) {
                fs_err::remove_dir_all(ahead)?;
            }
            return Ok(Some(Loaded { weights, optimizer, state: manifest.state }));
        }
        Ok(None)
    }

    /// Removes the checkpoints of a training that is done.
    pub(crate) fn remove(&self) -> std::io::Result<()> {
        remove(&self.folder)
    }

    /// The checkpoints by their steps.
    fn steps(&self) -> Result<Vec<(usize, PathBuf)>, TrainingError> {
        let mut steps = Vec::new();
        if self.folder.is_dir() {
            for entry in fs_err::read_dir(&self.folder)? {
                let path = entry?.path();
                let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                if let Some(step) = name.strip_prefix("step-").and_then(|step| step.parse().ok()) {
                    steps.push((step, path));
                }
            }
        }
        steps.sort();
        Ok(steps)
    }
}

/// What a checkpoint says of itself; none, with a warning, if it is not whole.
fn read<S: DeserializeOwned>(folder: &Path) -> Result<Option<Manifest<S>>, TrainingError> {
    let path = folder.join(STATE);
    if !path.is_file() {
        return Ok(None);
    }
    let manifest: Option<Manifest<S>> = toml::from_str(&fs_err::read_to_string(path)?).ok();
    let whole = |name: &str, sha256: &str| -> std::io::Result<bool> {
        let path = folder.join(name);
        Ok(path.is_file() && sha256_file(&path)? == sha256)
    };
    match manifest {
        Some(manifest)
            if whole(WEIGHTS, &manifest.weights_sha256)?
                && whole(OPTIMIZER, &manifest.optimizer_sha256)? =>
        {
            Ok(Some(manifest))
        }
        _ => {
            tracing::warn!(folder = %folder.display(), "a damaged checkpoint is passed over");
            Ok(None)
        }
    }
}

pub(crate) fn record(folder: &Path, error: &RecordError) -> TrainingError {
    TrainingError::Record { path: folder.into(), message: error.to_string() }
}

/// Makes a folder, but not the one that it is in: a run directory that went away must not come back
/// with half of what was in it.
pub(crate) fn make(folder: &Path) -> std::io::Result<()> {
    match fs_err::create_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

fn remove(folder: &Path) -> std::io::Result<()> {
    if folder.exists() { fs_err::remove_dir_all(folder) } else { Ok(()) }
}
