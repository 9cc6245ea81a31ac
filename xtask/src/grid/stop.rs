use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result};

/// Ctrl-C and SIGTERM, counted. The first asks every run to write a checkpoint and end, the second
/// ends them at once.
#[derive(Clone, Default)]
pub(crate) struct Stop {
    asked: Arc<AtomicUsize>,
}

impl Stop {
    /// Counts signals from now on. Once a process.
    pub(crate) fn on_signal() -> Result<Self> {
        let stop = Self::default();
        let asked = stop.asked.clone();
        ctrlc::set_handler(move || {
            asked.fetch_add(1, Ordering::Relaxed);
        })
        .context("the signal handler")?;
        Ok(stop)
    }

    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    #[cfg(test)]
    pub(crate) fn ask(&self) {
        self.asked.fetch_add(1, Ordering::Relaxed);
    }
}

/// Passes the signal on: a run stands in a process group of its own, so that it gets each once.
#[cfg(unix)]
pub(crate) fn pass_on(child: &Child) {
    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;
    // One that has just ended is no error.
    let _ = kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM);
}

/// Ctrl-C reaches every process of the console there.
#[cfg(not(unix))]
pub(crate) fn pass_on(_: &Child) {}
