//! What ends a training before its time: a signal, or the end of standard input.

use std::io::{Read, stdin};
use std::process::exit;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use anyhow::{Context, Result};
use burn::train::Interrupter;

/// Of a process that was asked to end and did.
const STOPPED: i32 = 130;

/// Of a training that Ctrl-C and SIGTERM end after the step at hand; a second one ends the process.
/// Once a process.
pub(crate) fn interrupter() -> Result<Interrupter> {
    let interrupter = Interrupter::new();
    let stopping = interrupter.clone();
    let asked = AtomicBool::new(false);
    ctrlc::set_handler(move || {
        // Not what the interrupter says: the end of standard input, which may come with the first
        // signal, is no second one.
        if asked.swap(true, Ordering::Relaxed) {
            exit(STOPPED);
        }
        stopping.stop(Some("a signal asked the training to stop"));
    })
    .context("the signal handler")?;
    Ok(interrupter)
}

/// Standard input under `--stop-with-stdin`: the program that started this one holds its other end,
/// and lets go of it however it ends, by SIGKILL, too.
///
/// A training then ends after the step at hand, with a checkpoint. Anything else ends at once: it is
/// begun again when the run goes on, and whoever starts it again does not wait long.
#[derive(Clone, Default)]
pub(crate) struct Lifeline(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    training: Option<Interrupter>,
    ended: bool,
}

impl Lifeline {
    /// Watches standard input from now on, if it is `asked` for.
    pub(crate) fn watch(asked: bool) -> Self {
        let lifeline = Self::default();
        if asked {
            let watching = lifeline.clone();
            std::thread::spawn(move || {
                let mut buffer = [0; 64];
                // What is said there means nothing; one that cannot be read has ended.
                while stdin().read(&mut buffer).is_ok_and(|read| read > 0) {}
                watching.end();
            });
        }
        lifeline
    }

    /// Trains; this is what a stop waits for.
    pub(crate) fn during<T, E>(
        &self,
        interrupter: &Interrupter,
        train: impl FnOnce() -> std::result::Result<T, E>,
    ) -> std::result::Result<T, E> {
        self.state().training = Some(interrupter.clone());
        // One that was interrupted says so and ends by itself.
        let trained = train()?;
        let mut state = self.state();
        state.training = None;
        if state.ended {
            exit(STOPPED);
        }
        drop(state);
        Ok(trained)
    }

    fn end(&self) {
        let mut state = self.state();
        state.ended = true;
        match &state.training {
            Some(interrupter) => {
                interrupter.stop(Some("standard input ended: what started this run has gone"));
            }
            None => exit(STOPPED),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no holder of the lock panics")
    }
}
