//! What ends a training before its time: a signal, or the end of standard input.

use std::io::{Read, Write, stderr, stdin};
use std::process::exit;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use anyhow::{Context, Result};
use burn::train::Interrupter;

/// Of a process that was asked to end and did.
const STOPPED: i32 = 130;

/// What a process is stopped by: signals, and standard input under `--stop-with-stdin`, whose other
/// end the program that started this one holds, and lets go of however it ends, by SIGKILL, too.
///
/// A training then ends after the step at hand, with a checkpoint. Anything else ends at once: it is
/// begun again when the run goes on, and whoever starts it again does not wait long.
#[derive(Clone, Default)]
pub(crate) struct Lifeline(Arc<Mutex<Option<Interrupter>>>);

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
                watching.stop("standard input ended: what started this run has gone");
            });
        }
        lifeline
    }

    /// Of trainings that Ctrl-C and SIGTERM stop, too; a second signal ends the process. Once a
    /// process.
    pub(crate) fn interrupter(&self) -> Result<Interrupter> {
        let stopping = self.clone();
        let asked = AtomicBool::new(false);
        ctrlc::set_handler(move || {
            // Not what the interrupter says: the end of standard input, which may come with the
            // first signal, is no second one.
            if asked.swap(true, Ordering::Relaxed) {
                exit(STOPPED);
            }
            stopping.stop("a signal asked the training to stop");
        })
        .context("the signal handler")?;
        Ok(Interrupter::new())
    }

    /// Trains; this is what a stop waits for.
    pub(crate) fn during<T, E>(
        &self,
        interrupter: &Interrupter,
        train: impl FnOnce() -> std::result::Result<T, E>,
    ) -> std::result::Result<T, E> {
        *self.training() = Some(interrupter.clone());
        // One that was interrupted says so and ends by itself.
        let trained = train()?;
        *self.training() = None;
        if interrupter.should_stop() {
            end();
        }
        Ok(trained)
    }

    fn stop(&self, reason: &str) {
        match &*self.training() {
            Some(interrupter) => interrupter.stop(Some(reason)),
            None => end(),
        }
    }

    fn training(&self) -> MutexGuard<'_, Option<Interrupter>> {
        self.0.lock().expect("no holder of the lock panics")
    }
}

/// Ends the process outside of a training.
fn end() -> ! {
    // A closed stderr is no reason to go on.
    let _ = writeln!(stderr(), "stopped; the same command goes on from there");
    exit(STOPPED)
}
