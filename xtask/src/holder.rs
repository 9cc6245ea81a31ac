use std::fmt::{Display, Formatter};
use std::fs::TryLockError;
use std::io::ErrorKind;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use nsmc_experiment::{FileLock, knows_no_locks};

use crate::grid::Stop;
use crate::say;

/// How long one is waited for, if nothing else is to do. The run of an xtask that was killed ends
/// after the step at hand and its checkpoint, which takes a minute at most; of one that somebody
/// else started it is not known when it ends, so that its process is named.
pub(crate) const PATIENCE: Duration = Duration::from_mins(2);

/// A process that keeps a run from being started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Holder {
    pid: Option<u32>,
}

/// What came of an attempt that another process may be in the way of.
pub(crate) enum Attempt<T> {
    Made(T),
    Held(Holder),
}

impl Holder {
    /// The lock on `path`, or who holds it. The file goes with the lock: it stands beside runs, and
    /// nobody has a use for it when they are done.
    pub(crate) fn lock(path: &Path) -> Result<Attempt<FileLock>> {
        Ok(match FileLock::try_acquire(path)? {
            Some(lock) => Attempt::Made(lock.removing_its_file()),
            None => Attempt::Held(Self { pid: FileLock::holder(path) }),
        })
    }

    /// Who is at work in a run directory; none if nobody is.
    pub(crate) fn of(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(".lock");
        // A run's own lock names its process: asking leaves no trace there.
        let file = match fs_err::OpenOptions::new().read(true).write(true).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        match file.file().try_lock() {
            Ok(()) => Ok(None),
            Err(TryLockError::WouldBlock) => Ok(Some(Self { pid: FileLock::holder(&path) })),
            // Locks are granted there.
            Err(TryLockError::Error(error)) if knows_no_locks(&error) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error.into()),
        }
    }

    /// What a person is told when it is waited for.
    pub(crate) fn waiting(&self) -> String {
        format!("{self} is at work on it; waiting for it to end")
    }

    /// What a person is told when it was waited for in vain.
    pub(crate) fn in_the_way(&self) -> String {
        let kill = self.pid.map(|pid| format!(" (`kill {pid}`)")).unwrap_or_default();
        format!(
            "{self} is at work on it and does not end; wait for it or stop it{kill}, then the same \
             command goes on"
        )
    }
}

impl Display for Holder {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        match self.pid {
            Some(pid) => write!(f, "process {pid}"),
            None => write!(f, "another process"),
        }
    }
}

/// Attempts something until nobody is in the way of it, or until patience is at its end; says once
/// whom it waits for, and with what.
pub(crate) fn patiently<T>(
    what: &str,
    stop: &Stop,
    patience: Duration,
    mut attempt: impl FnMut() -> Result<Attempt<T>>,
) -> Result<T> {
    let mut since = None;
    loop {
        let holder = match attempt()? {
            Attempt::Made(made) => return Ok(made),
            Attempt::Held(holder) => holder,
        };
        let since = since.get_or_insert_with(|| {
            say(&format!("{what}: {}", holder.waiting()));
            Instant::now()
        });
        ensure!(stop.asked() == 0, "{what}: stopped while it waited for {holder}");
        if since.elapsed() >= patience {
            bail!("{what}: {}", holder.in_the_way());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}
