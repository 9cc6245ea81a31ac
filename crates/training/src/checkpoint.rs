use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::optim::ModuleOptimizer;
use nsmc_experiment::sha256_file;
use serde::{Deserialize, Serialize};

use crate::TrainingError;

const MODEL: &str = "model.bpk";
const OPTIMIZER: &str = "optimizer.bpk";
const STATE: &str = "state.json";
/// The checkpoint before the learning rate fell: a longer training goes on from there.
const STABLE: &str = "stable";
/// How many others are kept.
const KEPT: usize = 2;

/// Where a training stands after a step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct State {
    /// Steps done.
    pub(crate) step: usize,
    /// The epoch of the next batch, from 0.
    pub(crate) epoch: usize,
    /// The next batch of that epoch, from 0.
    pub(crate) batch: usize,
    /// Tokens trained on.
    pub(crate) tokens: usize,
    /// Time of the training steps.
    pub(crate) seconds: f64,
    /// Losses since the last measurement.
    pub(crate) loss_sum: f64,
    /// Steps since the last measurement.
    pub(crate) loss_steps: usize,
}

/// What a checkpoint brings back.
pub(crate) struct Loaded<M> {
    pub(crate) model: M,
    pub(crate) optimizer: ModuleOptimizer,
    pub(crate) state: State,
}

/// `state.json`: the state, of which training, and what the other files must hold.
#[derive(Serialize, Deserialize)]
struct Manifest {
    identity: String,
    schedule: Schedule,
    state: State,
    model_sha256: String,
    optimizer_sha256: String,
}

/// How long a training is, and from which step its learning rate falls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Schedule {
    pub(crate) num_train_steps: usize,
    pub(crate) decay_start: usize,
}

/// The checkpoints of a run directory: `checkpoint/step-N/`, the last two.
pub(crate) struct Checkpoints {
    folder: PathBuf,
    identity: String,
    schedule: Schedule,
}

impl Checkpoints {
    pub(crate) fn new(run: &Path, identity: String, schedule: Schedule) -> Self {
        Self { folder: run.join("checkpoint"), identity, schedule }
    }

    /// Writes a checkpoint, which appears whole or not at all, and removes older ones. The one at
    /// the start of the decay is also kept by itself.
    pub(crate) fn save<M: Module>(
        &self,
        model: &M,
        optimizer: &ModuleOptimizer,
        state: &State,
    ) -> Result<(), TrainingError> {
        let incoming = self.folder.join("incoming");
        remove(&incoming)?;
        fs_err::create_dir_all(&incoming)?;
        let record = |error: burn::store::RecordError| TrainingError::Record {
            path: incoming.clone(),
            message: error.to_string(),
        };
        model.clone().save_file(incoming.join(MODEL)).map_err(record)?;
        optimizer.save(incoming.join(OPTIMIZER)).map_err(record)?;
        let manifest = Manifest {
            identity: self.identity.clone(),
            schedule: self.schedule,
            state: state.clone(),
            model_sha256: sha256_file(&incoming.join(MODEL))?,
            optimizer_sha256: sha256_file(&incoming.join(OPTIMIZER))?,
        };
        let json = serde_json::to_string_pretty(&manifest).expect("a state is representable");
        fs_err::write(incoming.join(STATE), json + "\n")?;
        // After a power failure a file that was not synced may be empty under its name.
        for file in [MODEL, OPTIMIZER, STATE] {
            fs_err::File::open(incoming.join(file))?.sync_all()?;
        }
        if state.step == self.schedule.decay_start {
            let target = self.folder.join(STABLE);
            remove(&target)?;
            fs_err::create_dir_all(&target)?;
            for file in [MODEL, OPTIMIZER, STATE] {
                fs_err::copy(incoming.join(file), target.join(file))?;
            }
        }
        let target = self.folder.join(format!("step-{}", state.step));
        remove(&target)?;
        fs_err::rename(&incoming, &target)?;
        let steps = self.steps()?;
        for (_, folder) in steps.iter().rev().skip(KEPT) {
            fs_err::remove_dir_all(folder)?;
        }
        Ok(())
    }

    /// The newest checkpoint that is whole, put into a model and an optimiser of the same making.
    ///
    /// One from within the decay of the learning rate is of use only to the same schedule; to a longer
    /// one, the stable one is.
    pub(crate) fn load<M: Module>(
        &self,
        model: &M,
        optimizer: impl Fn() -> ModuleOptimizer,
    ) -> Result<Option<Loaded<M>>, TrainingError> {
        let mut candidates: Vec<PathBuf> =
            self.steps()?.into_iter().rev().map(|(_, folder)| folder).collect();
        candidates.push(self.folder.join(STABLE));
        for folder in candidates {
            let Some(manifest) = read(&folder)? else { continue };
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
            if !same && manifest.state.step > decay_start {
                continue;
            }
            let record = |error: burn::store::RecordError| TrainingError::Record {
                path: folder.clone(),
                message: error.to_string(),
            };
            let model = model.clone().try_load_file(folder.join(MODEL)).map_err(record)?;
            let optimizer = optimizer().load(folder.join(OPTIMIZER)).map_err(record)?;
            return Ok(Some(Loaded { model, optimizer, state: manifest.state }));
        }
        Ok(None)
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
fn read(folder: &Path) -> Result<Option<Manifest>, TrainingError> {
    let path = folder.join(STATE);
    if !path.is_file() {
        return Ok(None);
    }
    let manifest: Option<Manifest> = serde_json::from_str(&fs_err::read_to_string(path)?).ok();
    let whole = |name: &str, sha256: &str| -> std::io::Result<bool> {
        let path = folder.join(name);
        Ok(path.is_file() && sha256_file(&path)? == sha256)
    };
    match manifest {
        Some(manifest)
            if whole(MODEL, &manifest.model_sha256)?
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

fn remove(folder: &Path) -> std::io::Result<()> {
    if folder.exists() { fs_err::remove_dir_all(folder) } else { Ok(()) }
}
