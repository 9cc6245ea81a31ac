//! How long a run took and how much memory it held, over all the processes that worked on it.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use burn::tensor::Device;
use nsmc_experiment::{Stretch, write_durably};
use nsmc_training::peak_memory_mib;
use serde::Deserialize;

use crate::device::NamedDevice;
use crate::provenance;

/// In the run directory while the run is not done.
pub(crate) const FILE: &str = "stretches.json";

/// A process that is killed takes at most the last of these with it.
const BEAT: Duration = Duration::from_secs(1);

/// Keeps the stretches of a run in its directory, those of earlier processes and this one's.
pub(crate) struct Stretches {
    stop: Sender<()>,
    thread: JoinHandle<Beats>,
}

struct Beats {
    path: PathBuf,
    device: Device,
    clock: Instant,
    stretches: Vec<Stretch>,
}

impl Stretches {
    /// Begins this process's stretch.
    pub(crate) fn begin(run: &Path, device: &NamedDevice) -> Result<Self> {
        let path = run.join(FILE);
        let earlier = path.is_file().then(|| fs_err::read(&path)).transpose()?;
        let mut stretches: Vec<Stretch> = match earlier.as_deref().map(serde_json::from_slice) {
            None => recorded(run),
            Some(Ok(stretches)) => stretches,
            Some(Err(_)) => {
                tracing::warn!(file = %path.display(), "damaged: the run's time begins anew");
                Vec::new()
            }
        };
        let started =
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let program = provenance::of_this_program().program();
        if let (Some(before), Some(now)) = (Stretch::programs(&stretches).last(), &program)
            && before != now
        {
            tracing::warn!(
                "goes on from what the program of {before} left, with that of {now}: if the two \
                 compute differently, its numbers are neither's"
            );
        }
        if let Some(before) = Stretch::devices(&stretches).last()
            && *before != device.name
        {
            tracing::warn!(
                "goes on on {}, after {before}: other last digits, and times that are of both",
                device.name
            );
        }
        let name = Some(device.name.clone());
        stretches.push(Stretch { started, program, device: name, ..Stretch::default() });
        let (device, clock) = (device.device.clone(), Instant::now());
        let mut beats = Beats { path, device, clock, stretches };
        beats.beat()?;
        let (stop, stopped) = channel();
        let thread = std::thread::spawn(move || beats.run(&stopped));
        Ok(Self { stop, thread })
    }

    /// Ends the stretch and gives all of them.
    pub(crate) fn end(self) -> Vec<Stretch> {
        drop(self.stop);
        let mut beats = self.thread.join().expect("the beats do not panic");
        // For the process that goes on, if the run was stopped; the beats have warned before.
        let _ = beats.beat();
        beats.stretches
    }
}

/// The stretches that a run's record has: a pre-training that is done can be made longer.
fn recorded(run: &Path) -> Vec<Stretch> {
    #[derive(Default, Deserialize)]
    struct Record {
        #[serde(default)]
        stretches: Vec<Stretch>,
    }
    let record = fs_err::read(run.join("record.json")).ok();
    let record = record.and_then(|bytes| serde_json::from_slice::<Record>(&bytes).ok());
    record.unwrap_or_default().stretches
}

impl Beats {
    fn run(mut self, stopped: &Receiver<()>) -> Self {
        let mut told = false;
        while stopped.recv_timeout(BEAT) == Err(RecvTimeoutError::Timeout) {
            // What is lost is a second of bookkeeping; the run itself will say what is wrong.
            if let Err(error) = self.beat()
                && !std::mem::replace(&mut told, true)
            {
                tracing::warn!("{error:#}");
            }
        }
        self
    }

    fn measure(&mut self) {
        let (seconds, peak) = (self.clock.elapsed().as_secs_f64(), peak_memory_mib(&self.device));
        if let Some(last) = self.stretches.last_mut() {
            last.seconds = seconds;
            // A GPU's pool gives back what it no longer needs.
            last.peak_memory_mib = last.peak_memory_mib.into_iter().chain(peak).reduce(f64::max);
        }
    }

    fn beat(&mut self) -> Result<()> {
        self.measure();
        Ok(write_durably(&self.path, serde_json::to_vec(&self.stretches)?)?)
    }
}
