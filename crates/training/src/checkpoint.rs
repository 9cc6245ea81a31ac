use std::path::{Path, PathBuf};

use burn::optim::{ModuleOptimizer, OptimizerRecord};
use burn::store::{ModuleRecord, RecordError};
use nsmc_experiment::{read_sealed, rename_folder_durably, seal, sha256_file, sync_entries};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::TrainingError;

const WEIGHTS: &str = "weights.bpk";
const OPTIMIZER: &str = "optimizer.bpk";
// TOML, which has comments: the hash of its lines stands in one above them.
const STATE: &str = "state.toml";
/// A checkpoint before it gets its name.
const INCOMING: &str = "incoming";
/// The checkpoint before the learning rate fell: a longer training goes on from there.
const STABLE: &str = "stable";
/// In the folder of a training that is done: what it found.
pub(crate) const FITTED: &str = "fitted.toml";
/// How many checkpoints are kept beside [`STABLE`].
const CHECKPOINTS_KEPT: usize = 2;

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
#[derive(Clone)]
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

    /// Writes a checkpoint, which appears whole or not at all, and removes others once it is on the
    /// disk: older ones, and those of more steps, which are damaged or of another schedule. The one
    /// at the start of the decay is also kept by itself.
    ///
    /// Weights and moments are copies in memory: the training may go on meanwhile.
    pub(crate) fn save<S: Serialize>(
        &self,
        weights: ModuleRecord,
        optimizer: OptimizerRecord,
        step: usize,
        state: &S,
    ) -> Result<(), TrainingError> {
        let incoming = self.folder.join(INCOMING);
        make_durably(&self.folder)?;
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
        fs_err::write(incoming.join(STATE), seal(&text))?;
        if step == self.schedule.decay_start {
            self.keep_stable(&incoming)?;
        }
        rename_folder_durably(&incoming, &self.folder.join(format!("step-{step}")))?;
        let (older, ahead): (Vec<_>, Vec<_>) =
            self.steps()?.into_iter().partition(|(other, _)| *other <= step);
        for (_, folder) in older.iter().rev().skip(CHECKPOINTS_KEPT).chain(&ahead) {
            fs_err::remove_dir_all(folder)?;
        }
        Ok(())
    }

    /// Keeps a whole checkpoint of the start of the decay by itself.
    fn keep_stable(&self, incoming: &Path) -> std::io::Result<()> {
        let stable = self.folder.join("incoming-stable");
        remove(&stable)?;
        make(&stable)?;
        for file in [WEIGHTS, OPTIMIZER, STATE] {
            fs_err::copy(incoming.join(file), stable.join(file))?;
        }
        rename_folder_durably(&stable, &self.folder.join(STABLE))
    }

    /// The newest checkpoint to go on from, as [`Self::find`] has it; `optimizer` makes one as it was
    /// before.
    pub(crate) fn load<S: DeserializeOwned>(
        &self,
        optimizer: impl Fn() -> ModuleOptimizer,
        usable: impl Fn(&S) -> std::io::Result<bool>,
    ) -> Result<Option<Loaded<S>>, TrainingError> {
        let Some((folder, state)) = self.find(usable)? else { return Ok(None) };
        let weights =
            ModuleRecord::load(folder.join(WEIGHTS)).map_err(|error| record(&folder, &error))?;
        let optimizer =
            optimizer().load(folder.join(OPTIMIZER)).map_err(|error| record(&folder, &error))?;
        Ok(Some(Loaded { weights, optimizer, state }))
    }

    /// The newest checkpoint that is whole, that the schedule goes on from and whose state is `usable`,
    /// and that state.
    ///
    /// One from within the decay of the learning rate is of use only to the same schedule; to a
    /// longer one, the stable one is. Where none is of use to this one, a training that began anew
    /// would put its own in their place: that is an error.
    pub(crate) fn find<S: DeserializeOwned>(
        &self,
        usable: impl Fn(&S) -> std::io::Result<bool>,
    ) -> Result<Option<(PathBuf, S)>, TrainingError> {
        self.finish_saving::<S>()?;
        let mut candidates: Vec<PathBuf> =
            self.steps()?.into_iter().rev().map(|(_, folder)| folder).collect();
        candidates.push(self.folder.join(STABLE));
        candidates.retain(|folder| folder.is_dir());
        let mut too_far = None;
        for folder in &candidates {
            let Some(manifest) = read::<S>(folder)? else { continue };
            if manifest.identity != self.identity {
                return Err(TrainingError::OtherTraining { path: folder.clone() });
            }
            let same = manifest.schedule == self.schedule;
            let decay_start = manifest.schedule.decay_start.min(self.schedule.decay_start);
            if !same && manifest.step > decay_start {
                too_far.get_or_insert_with(|| self.too_far(folder, &manifest));
            } else if usable(&manifest.state)? {
                return Ok(Some((folder.clone(), manifest.state)));
            }
        }
        if let Some(error) = too_far {
            return Err(error);
        }
        if !candidates.is_empty() {
            tracing::warn!(
                folder = %self.folder.display(),
                "no checkpoint in it can be gone on from: the training begins anew"
            );
        }
        Ok(None)
    }

    /// The error for a checkpoint of another schedule from beyond where the two part.
    fn too_far<S>(&self, folder: &Path, manifest: &Manifest<S>) -> TrainingError {
        let Manifest { schedule: there, step, .. } = manifest;
        TrainingError::TooFarOn {
            path: folder.into(),
            step: *step,
            steps_there: there.num_train_steps,
            decay_start_there: there.decay_start,
            steps_here: self.schedule.num_train_steps,
            decay_start_here: self.schedule.decay_start,
        }
    }

    /// Names a checkpoint that was whole when its training was cut off. The one of its name may be gone
    /// already: two are made at the step that ends an epoch, before validation and after it.
    fn finish_saving<S: DeserializeOwned>(&self) -> Result<(), TrainingError> {
        let incoming = self.folder.join(INCOMING);
        match whole::<S>(&incoming)? {
            Ok(manifest) if manifest.identity == self.identity => {
                // The step does not come again.
                if manifest.step == manifest.schedule.decay_start {
                    self.keep_stable(&incoming)?;
                }
                let named = self.folder.join(format!("step-{}", manifest.step));
                Ok(rename_folder_durably(&incoming, &named)?)
            }
            _ => Ok(()),
        }
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
    match whole(folder)? {
        Ok(manifest) => Ok(Some(manifest)),
        Err(name) => {
            let file = folder.join(name);
            tracing::warn!(file = %file.display(), "damaged or missing: its checkpoint is passed over");
            Ok(None)
        }
    }
}

/// What a checkpoint says of itself, or which of its files is not what it was.
fn whole<S: DeserializeOwned>(
    folder: &Path,
) -> Result<Result<Manifest<S>, &'static str>, TrainingError> {
    let path = folder.join(STATE);
    let text = if path.is_file() { read_sealed(&path)? } else { None };
    let Some(manifest) = text.and_then(|text| toml::from_str::<Manifest<S>>(&text).ok()) else {
        return Ok(Err(STATE));
    };
    for (name, sha256) in
        [(WEIGHTS, &manifest.weights_sha256), (OPTIMIZER, &manifest.optimizer_sha256)]
    {
        let path = folder.join(name);
        if !path.is_file() || sha256_file(&path)? != *sha256 {
            return Ok(Err(name));
        }
    }
    Ok(Ok(manifest))
}

/// The identities of the trainings that have left something in a run directory: one for each of its
/// checkpoints and for each finished training, as far as their files are whole.
///
/// Read are those of [`crate::fit()`], of AdapterFusion's first stage as well, and of
/// [`crate::pretrain`].
pub fn identities(run: &Path) -> Vec<String> {
    #[derive(Deserialize)]
    struct Identified {
        identity: String,
    }
    let identity = |path: PathBuf| {
        let text = read_sealed(&path).ok()??;
        toml::from_str(&text).ok().map(|Identified { identity }| identity)
    };
    let mut files = Vec::new();
    for stage in [run.to_owned(), run.join("adapter")] {
        files.push(stage.join(FITTED));
        for folder in ["resume", "checkpoint"] {
            let entries = fs_err::read_dir(stage.join(folder)).into_iter().flatten().flatten();
            files.extend(entries.map(|entry| entry.path().join(STATE)));
        }
    }
    files.into_iter().filter_map(identity).collect()
}

pub(crate) fn record(folder: &Path, error: &RecordError) -> TrainingError {
    TrainingError::Record { path: folder.into(), reason: error.clone() }
}

/// Makes a folder, but not the one that it is in: a run directory that went away must not come back
/// with half of what was in it.
pub(crate) fn make(folder: &Path) -> std::io::Result<()> {
    match fs_err::create_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

/// The same, and waits until a new folder is on the disk.
pub(crate) fn make_durably(folder: &Path) -> std::io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    make(folder)?;
    folder.parent().map_or(Ok(()), sync_entries)
}

/// Removes a folder, if it is there.
pub(crate) fn remove(folder: &Path) -> std::io::Result<()> {
    if folder.exists() { fs_err::remove_dir_all(folder) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use burn::module::Module;
    use burn::nn::{Linear, LinearConfig};
    use burn::optim::GradientsParams;
    use burn::tensor::{Device, Tensor};
    use nsmc_experiment::Optimizer;

    use super::*;
    use crate::AdamW;

    fn optimizer() -> ModuleOptimizer {
        let adamw = AdamW {
            flavour: Optimizer::AdamwTorch,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            weight_decay: 0.01,
        };
        adamw.for_module(&Device::flex())
    }

    fn step(model: Linear, optimizer: &mut ModuleOptimizer) -> Linear {
        let input = Tensor::<2>::ones([4, 3], &Device::flex().autodiff());
        let loss = model.forward(input).square().sum();
        let gradients = GradientsParams::from_grads(loss.backward(), &model);
        optimizer.step(0.1, model, gradients)
    }

    fn model() -> Linear {
        LinearConfig::new(3, 5).init(&Device::flex().autodiff())
    }

    fn checkpoints(folder: &Path, identity: &str) -> Checkpoints {
        scheduled(folder, identity, [99, 0])
    }

    fn scheduled(folder: &Path, identity: &str, schedule: [usize; 2]) -> Checkpoints {
        let [num_train_steps, decay_start] = schedule;
        let schedule = Schedule { num_train_steps, decay_start };
        Checkpoints::new(folder.join("resume"), identity.into(), schedule)
    }

    fn load(checkpoints: &Checkpoints) -> Option<usize> {
        let loaded = checkpoints.load(optimizer, |_| Ok(true)).unwrap();
        loaded.map(|loaded: Loaded<State>| loaded.state.step)
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct State {
        step: usize,
    }

    fn save(checkpoints: &Checkpoints, steps: usize) {
        let mut moments = optimizer();
        let model = step(model(), &mut moments);
        let state = State { step: steps };
        checkpoints.save(model.into_record(), moments.to_record(), steps, &state).unwrap();
    }

    #[test]
    fn copies_that_wait_to_be_written_are_not_changed_by_the_steps_after_them() {
        let mut moments = optimizer();
        let model = step(step(model(), &mut moments), &mut moments);
        let before = (
            model.clone().into_record().into_bytes().unwrap().to_vec(),
            moments.to_record().into_bytes().unwrap().to_vec(),
        );
        let waiting = (model.clone().into_record(), moments.to_record());
        let model = step(model, &mut moments);
        let after = model.clone().into_record().into_bytes().unwrap().to_vec();
        let changed = moments.to_record().into_bytes().unwrap().to_vec();
        assert_ne!(after, before.0, "the step changes the weights");
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        waiting.0.save(path("weights.bpk")).unwrap();
        waiting.1.save(path("moments.bpk")).unwrap();
        assert!(fs_err::read(path("weights.bpk")).unwrap() == before.0);
        // Moments are written in the order of a hash map.
        let moments = |bytes: Vec<u8>| {
            let mut bytes = bytes;
            bytes.sort_unstable();
            bytes
        };
        let written = moments(fs_err::read(path("moments.bpk")).unwrap());
        assert!(written == moments(before.1));
        assert!(written != moments(changed), "the step changes the moments");
    }

    #[test]
    fn the_newest_whole_checkpoint_is_gone_on_from_and_no_damaged_one_outlives_a_new_one() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = checkpoints(folder.path(), "one");
        assert_eq!(load(&checkpoints), None);
        for step in [8, 10, 12] {
            save(&checkpoints, step);
        }
        let file = |step: usize, name: &str| {
            folder.path().join("resume").join(format!("step-{step}")).join(name)
        };
        assert!(!file(8, "").exists());
        assert_eq!(load(&checkpoints), Some(12));
        // An unfinished one is none.
        fs_err::create_dir(folder.path().join("resume/incoming")).unwrap();
        for name in [STATE, WEIGHTS, OPTIMIZER] {
            let whole = fs_err::read(file(12, name)).unwrap();
            let half = whole.len() / 2;
            let mut changed = whole.clone();
            changed[half] = if whole[half] == 0xff { 0 } else { 0xff };
            for damaged in [&[][..], &whole[..half], &changed] {
                fs_err::write(file(12, name), damaged).unwrap();
                assert_eq!(load(&checkpoints), Some(10), "{name}: {} bytes", damaged.len());
            }
            fs_err::remove_file(file(12, name)).unwrap();
            assert_eq!(load(&checkpoints), Some(10), "{name}");
            fs_err::write(file(12, name), whole).unwrap();
        }
        let none = |_: &State| Ok(false);
        assert!(checkpoints.load(optimizer, none).unwrap().is_none());

        fs_err::write(file(12, STATE), "").unwrap();
        fs_err::write(file(10, WEIGHTS), "").unwrap();
        assert_eq!(load(&checkpoints), None);
        // Begun anew, it is at an earlier step.
        save(&checkpoints, 2);
        assert_eq!(load(&checkpoints), Some(2));
        assert!(!file(10, "").exists() && !file(12, "").exists());
    }

    #[test]
    fn checkpoints_that_a_shorter_training_cannot_go_on_from_are_refused_and_stay() {
        let folder = tempfile::tempdir().unwrap();
        let of = |schedule| scheduled(folder.path(), "one", schedule);
        let long = of([40, 30]);
        for step in [20, 30, 40] {
            save(&long, step);
        }
        let refused = |schedule| {
            let Err(error) = of(schedule).load::<State>(optimizer, |_| Ok(true)) else {
                panic!("all of them are further on")
            };
            error.to_string()
        };
        let message = refused([20, 10]);
        assert!(message.contains("step-40: it is after step 40 of a training of 40"), "{message}");
        assert!(message.contains("one of 20 steps, falling from step 10 on"), "{message}");
        assert!(message.ends_with("give another directory with `--out`"), "{message}");
        // As long, but with an earlier decay.
        refused([40, 29]);
        assert_eq!(load(&long), Some(40));
        assert_eq!(load(&of([50, 40])), Some(30), "a longer one goes on from before the decay");
        // A kill before the one at the start of the decay was kept by itself: its step does not come
        // again.
        let path = |name: &str| folder.path().join("resume").join(name);
        fs_err::remove_dir_all(path("stable")).unwrap();
        fs_err::remove_dir_all(path("step-40")).unwrap();
        fs_err::rename(path("step-30"), path("incoming")).unwrap();
        assert_eq!(load(&long), Some(30));
        save(&long, 35);
        save(&long, 40);
        assert!(!path("step-30").exists());
        assert_eq!(load(&of([50, 40])), Some(30));
        // What is not whole keeps nobody from beginning anew.
        for name in ["step-35", "step-40", "stable"] {
            fs_err::write(folder.path().join("resume").join(name).join(STATE), "").unwrap();
        }
        assert_eq!(load(&of([20, 10])), None);
    }

    /// The second checkpoint of the step that ends an epoch takes the place of the first: a kill in
    /// between finds the first gone and the second without its name.
    #[test]
    fn a_whole_checkpoint_that_was_not_named_yet_is_gone_on_from() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = checkpoints(folder.path(), "one");
        let [incoming, four, eight] =
            ["incoming", "step-4", "step-8"].map(|name| folder.path().join("resume").join(name));
        save(&checkpoints, 8);
        fs_err::rename(&eight, &incoming).unwrap();
        assert_eq!(load(&checkpoints), Some(8));
        assert!(eight.is_dir() && !incoming.exists());
        // The one of its name is there still, or half of it.
        save(&checkpoints, 4);
        save(&checkpoints, 8);
        fs_err::rename(&eight, &incoming).unwrap();
        fs_err::create_dir(&eight).unwrap();
        assert_eq!(load(&checkpoints), Some(8));
        // Of another training, or not whole, it is none.
        fs_err::rename(&eight, &incoming).unwrap();
        let other = super::tests::checkpoints(folder.path(), "two");
        fs_err::rename(&four, folder.path().join("aside")).unwrap();
        assert_eq!(load(&other), None);
        fs_err::rename(folder.path().join("aside"), &four).unwrap();
        fs_err::write(incoming.join(WEIGHTS), "half").unwrap();
        assert_eq!(load(&checkpoints), Some(4));
        assert!(incoming.is_dir() && !eight.exists());
    }

    #[test]
    fn a_checkpoint_of_another_training_is_refused_and_says_which_it_is_of() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(identities(folder.path()), [""; 0]);
        save(&checkpoints(folder.path(), "one"), 1);
        save(&checkpoints(folder.path(), "one"), 2);
        fs_err::create_dir(folder.path().join("adapter")).unwrap();
        fs_err::write(folder.path().join("adapter").join(FITTED), seal("identity = \"two\"\n"))
            .unwrap();
        let mut found = identities(folder.path());
        found.sort();
        assert_eq!(found, ["one", "one", "two"]);
        let other = checkpoints(folder.path(), "two");
        let Err(error) = other.load::<State>(optimizer, |_| Ok(true)) else {
            panic!("it is of one")
        };
        assert!(error.to_string().contains("step-2: it is of a training with another"), "{error}");
        fs_err::write(folder.path().join("resume/step-2/state.toml"), "").unwrap();
        assert_eq!(identities(folder.path()).len(), 2);
    }
}
