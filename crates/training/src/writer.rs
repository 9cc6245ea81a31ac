use std::thread::JoinHandle;

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
            Some(pending) => pending.join().expect("writing a checkpoint does not panic"),
            None => Ok(()),
        }
    }
}

impl Drop for Writer {
    /// A training that ends with an error of its own leaves its last checkpoint.
    fn drop(&mut self) {
        if let Some(Ok(Err(error))) = self.pending.take().map(JoinHandle::join) {
            tracing::warn!("{error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, mpsc};

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
}
