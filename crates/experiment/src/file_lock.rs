use std::fs::TryLockError;
use std::io::{ErrorKind, Read, Result, Seek, Write};
use std::path::Path;

/// An exclusive advisory lock of the operating system on a file.
///
/// It goes with the process that holds it, however that ends: a lock is never stale. The file stays, or
/// goes with the lock ([`Self::removing_its_file`]). Where a file system knows no locks (some network
/// file systems), it is granted, as cargo does.
#[derive(Debug)]
pub struct FileLock {
    file: fs_err::File,
    removes_file: bool,
}

impl FileLock {
    /// The lock on `path`, which is made if it is not there; none if another process holds it.
    pub fn try_acquire(path: &Path) -> Result<Option<Self>> {
        loop {
            let file = open(path)?;
            match file.file().try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) if knows_no_locks(&error) => {}
                Err(TryLockError::Error(error)) => return Err(error),
            }
            if is_in_its_place(&file)? {
                return Self::held(file).map(Some);
            }
        }
    }

    /// The same, waiting for whoever holds it; `waits` is called once before.
    pub fn acquire(path: &Path, waits: impl FnOnce()) -> Result<Self> {
        if let Some(lock) = Self::try_acquire(path)? {
            return Ok(lock);
        }
        waits();
        loop {
            let file = open(path)?;
            file.file().lock()?;
            if is_in_its_place(&file)? {
                return Self::held(file);
            }
        }
    }

    /// Has the file go when the lock does, and before it: whoever waits for the lock then finds that its
    /// file is no longer what the next one would lock, and begins anew. Where a file cannot be told from
    /// another that has its name by now (Windows), it stays.
    #[must_use]
    pub fn removing_its_file(mut self) -> Self {
        self.removes_file = cfg!(unix);
        self
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
        Ok(Self { file, removes_file: false })
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        // One that somebody else has put there is not this lock's to remove.
        if self.removes_file && is_in_its_place(&self.file).unwrap_or(false) {
            // A file that stays does no harm.
            let _ = fs_err::remove_file(self.file.path());
        }
    }
}

/// Whether an open file is still the one of its name: it may have been removed while it was waited for.
#[cfg(unix)]
fn is_in_its_place(file: &fs_err::File) -> Result<bool> {
    use std::os::unix::fs::MetadataExt;
    // Opened, not asked for by its name: that a network file system may answer by what it knew before.
    let there = match fs_err::File::open(file.path()) {
        Ok(there) => there.metadata()?,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    let held = file.metadata()?;
    Ok((there.dev(), there.ino()) == (held.dev(), held.ino()))
}

/// Nobody removes it there.
#[cfg(not(unix))]
fn is_in_its_place(_: &fs_err::File) -> Result<bool> {
    Ok(true)
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

    #[cfg(unix)]
    #[test]
    fn a_lock_whose_file_goes_with_it_is_held_by_one_at_a_time_all_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let first = FileLock::try_acquire(&path).unwrap().unwrap().removing_its_file();
        let other = path.clone();
        let (waits, waiting) = std::sync::mpsc::channel();
        let waiter = std::thread::spawn(move || {
            let lock = FileLock::acquire(&other, || waits.send(()).unwrap()).unwrap();
            lock.removing_its_file()
        });
        waiting.recv().unwrap();
        // It says that it waits before it opens the file: give it the time to wait for this one.
        std::thread::sleep(std::time::Duration::from_millis(100));
        drop(first);
        let second = waiter.join().unwrap();
        assert!(FileLock::try_acquire(&path).unwrap().is_none(), "two hold it");
        // What somebody else has put into its place stays.
        fs_err::remove_file(&path).unwrap();
        let third = FileLock::try_acquire(&path).unwrap().unwrap().removing_its_file();
        drop(second);
        assert!(path.exists());
        drop(third);
        assert!(!path.exists());
    }

    /// Threads that take and let go a lock whose file goes with it: each adds 1 to a number that is read
    /// and written apart.
    #[cfg(unix)]
    #[test]
    fn no_count_is_lost_under_a_lock_whose_file_goes_with_it() {
        const THREADS: usize = 4;
        const TIMES: usize = 250;
        let folder = tempfile::tempdir().unwrap();
        let [path, count] = ["lock", "count"].map(|name| folder.path().join(name));
        fs_err::write(&count, "0").unwrap();
        let add = || {
            for _ in 0..TIMES {
                let _lock = FileLock::acquire(&path, || ()).unwrap().removing_its_file();
                let number: usize = fs_err::read_to_string(&count).unwrap().parse().unwrap();
                fs_err::write(&count, (number + 1).to_string()).unwrap();
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(add);
            }
        });
        assert_eq!(fs_err::read_to_string(&count).unwrap(), (THREADS * TIMES).to_string());
        assert!(!path.exists());
    }
}
