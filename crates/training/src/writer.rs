use std::panic::resume_unwind;
use std::thread::{JoinHandle, Result as Joined};

use crate::TrainingError;

/// Writes checkpoints beside the training: one at a time, on a thread of its own.
///
/// What is written is a copy that the training made of itself, for it goes on meanwhile.
#[derive(Default)]
pub(crate) struct Writer {
    pending: Option<JoinHandle<Result<(), TrainingError>>>,
}

impl Writer {
    /// Begins to write, when what was begun before is written. An error is that of the one before.
    pub(crate) fn begin(
        &mut self,
        write: impl FnOnce() -> Result<(), TrainingError> + Send + 'static,
    ) -> Result<(), TrainingError> {
        self.finish()?;
        let thread = std::thread::Builder::new().name("checkpoint".into());
        self.pending = Some(thread.spawn(write)?);
        Ok(())
    }

    /// The error of what was begun, if it is known already.
    pub(crate) fn check(&mut self) -> Result<(), TrainingError> {
        if self.pending.as_ref().is_some_and(JoinHandle::is_finished) {
            self.finish()
        } else {
            Ok(())
        }
    }

    /// Waits until what was begun is written.
    pub(crate) fn finish(&mut self) -> Result<(), TrainingError> {
        match self.pending.take() {
            Some(pending) => pending.join().unwrap_or_else(|panic| resume_unwind(panic)),
            None => Ok(()),
        }
    }
}

impl Drop for Writer {
    /// A training that ends with an error of its own leaves its last checkpoint.
    fn drop(&mut self) {
        let joined = self.pending.take().map(JoinHandle::join);
        if let Some(wrong) = joined.and_then(|joined| wrong(&joined)) {
            tracing::warn!("{wrong}");
        }
    }
}

/// What went wrong with a writing, if anything did.
fn wrong(joined: &Joined<Result<(), TrainingError>>) -> Option<String> {
    match joined {
        Ok(written) => written.as_ref().err().map(ToString::to_string),
        Err(panic) => {
            let said = panic.downcast_ref::<&str>().copied();
            let said = said.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
            Some(format!(
                "the last checkpoint was not written: its writer panicked: {}",
                said.unwrap_or("without a word")
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, mpsc};
    use std::thread;

    use super::*;

    fn failure(message: &str) -> TrainingError {
        TrainingError::Io(std::io::Error::other(message.to_owned()))
    }

    #[test]
    fn writings_follow_one_another_and_the_last_is_waited_for() {
        let written = Arc::new(AtomicUsize::new(0));
        let mut writer = Writer::default();
        for expected in 0..20 {
            let written = written.clone();
            let write = move || {
                assert_eq!(written.fetch_add(1, Ordering::SeqCst), expected);
                Ok(())
            };
            writer.begin(write).unwrap();
        }
        drop(writer);
        assert_eq!(written.load(Ordering::SeqCst), 20);
    }

    #[test]
    fn an_error_is_told_once_as_soon_as_it_is_known() {
        let mut writer = Writer::default();
        let (go_on, wait) = mpsc::channel::<()>();
        let write = move || {
            wait.recv().unwrap();
            Err(failure("no space"))
        };
        writer.begin(write).unwrap();
        writer.check().unwrap();
        go_on.send(()).unwrap();
        let error = loop {
            if let Err(error) = writer.check() {
                break error;
            }
            std::thread::yield_now();
        };
        assert_eq!(error.to_string(), "no space");
        writer.check().unwrap();
        writer.begin(|| Err(failure("first"))).unwrap();
        assert_eq!(writer.begin(|| Ok(())).unwrap_err().to_string(), "first");
        writer.finish().unwrap();
    }

    #[test]
    fn a_panic_is_the_trainings_own_and_is_told_where_that_has_another_error() {
        let mut writer = Writer::default();
        writer.begin(|| panic!("no such state")).unwrap();
        let finish = AssertUnwindSafe(|| writer.finish().unwrap());
        let panic = catch_unwind(finish).unwrap_err();
        assert_eq!(panic.downcast_ref::<&str>(), Some(&"no such state"));
        let told = |write: fn() -> Result<(), TrainingError>| wrong(&thread::spawn(write).join());
        let said = told(|| panic!("state {}", 7)).unwrap();
        assert!(said.ends_with("was not written: its writer panicked: state 7"), "{said}");
        assert_eq!(told(|| Err(failure("no space"))).unwrap(), "no space");
        assert_eq!(told(|| Ok(())), None);
    }
}
