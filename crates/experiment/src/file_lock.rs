use std::fs::TryLockError;
use std::io::{ErrorKind, Read, Result, Seek, Write};
use std::path::Path;

/// An exclusive advisory lock of the operating system on a file.
///
/// It goes with the process that holds it, however that ends: a lock is never stale. The file stays,
/// for one that is removed could be locked twice. Where a file system knows no locks (some network
/// file systems), it is granted, as cargo does.
#[derive(Debug)]
pub struct FileLock {
    _file: fs_err::File,
}

impl FileLock {
    /// The lock on `path`, which is made if it is not there; none if another process holds it.
    pub fn try_acquire(path: &Path) -> Result<Option<Self>> {
        let file = open(path)?;
        match file.file().try_lock() {
            Ok(()) => Self::held(file).map(Some),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) if knows_no_locks(&error) => Self::held(file).map(Some),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// The same, waiting for whoever holds it; `waits` is called once before.
    pub fn acquire(path: &Path, waits: impl FnOnce()) -> Result<Self> {
        if let Some(lock) = Self::try_acquire(path)? {
            return Ok(lock);
        }
        waits();
        let file = open(path)?;
        file.file().lock()?;
        Self::held(file)
    }

    /// The process that held the lock last, if its file says so.
    pub fn holder(path: &Path) -> Option<u32> {
        let mut text = String::new();
        let file = fs_err::File::open(path).ok()?;
        file.take(32).read_to_string(&mut text).ok()?;
        text.trim().parse().ok()
    }

    fn held(mut file: fs_err::File) -> Result<Self> {
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())?;
        Ok(Self { _file: file })
    }
}

/// Whether an attempt to lock a file says that its file system has no locks: that it does not know them,
/// or, as NFS without its lock service, that there are none to be had.
pub fn knows_no_locks(error: &std::io::Error) -> bool {
    let none_available = cfg!(target_os = "linux") && error.raw_os_error() == Some(ENOLCK);
    error.kind() == ErrorKind::Unsupported || none_available
}

/// Linux' number of "No locks available".
const ENOLCK: i32 = 37;

fn open(path: &Path) -> Result<fs_err::File> {
    fs_err::OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn a_file_system_without_locks_is_told_from_a_lock_that_is_held() {
        let error = std::io::Error::from_raw_os_error;
        let [no_locks, not_supported, would_block] = [37, 95, 11].map(error);
        assert!(knows_no_locks(&no_locks) && knows_no_locks(&not_supported));
        assert!(!knows_no_locks(&would_block));
    }

    #[test]
    fn a_lock_is_held_once_and_free_again_when_it_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let lock = FileLock::try_acquire(&path).unwrap().unwrap();
        assert!(FileLock::try_acquire(&path).unwrap().is_none());
        assert_eq!(FileLock::holder(&path), Some(std::process::id()));
        let other = path.clone();
        let (waits, waiting) = std::sync::mpsc::channel();
        let waiter = std::thread::spawn(move || {
            FileLock::acquire(&other, || waits.send(()).unwrap()).unwrap();
        });
        waiting.recv().unwrap();
        assert!(!waiter.is_finished());
        drop(lock);
        waiter.join().unwrap();
        assert!(FileLock::try_acquire(&path).unwrap().is_some());
    }
}
