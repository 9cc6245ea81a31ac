//! What the fuzz targets share: a folder for their files, and the check that nothing is written
//! outside it.

#[cfg(feature = "tensors")]
pub mod model;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Stands between the files of an input that is several.
const SEPARATOR: &[u8] = b"\n%%%%\n";

/// The only folders that a target may write to.
pub struct Place {
    root: PathBuf,
}

/// The process's place: `NSMC_FUZZ_FOLDER`, or a new temporary folder.
///
/// Temporary files of the code under test go to a folder in it, too.
pub fn place() -> &'static Place {
    static PLACE: OnceLock<Place> = OnceLock::new();
    PLACE.get_or_init(|| {
        let root = match std::env::var_os("NSMC_FUZZ_FOLDER") {
            Some(folder) => PathBuf::from(folder),
            None => tempfile::tempdir().expect("there is a temporary folder").keep(),
        };
        let place = Place { root };
        for folder in ["files", "temporary"] {
            fs_err::create_dir_all(place.root.join(folder)).expect("the folder can be written to");
        }
        tempfile::env::override_temp_dir(&place.root.join("temporary"))
            .expect("no other temporary folder was set");
        place
    })
}

impl Place {
    /// A folder for files, empty.
    pub fn empty(&self) -> PathBuf {
        let folder = self.root.join("files");
        for entry in fs_err::read_dir(&folder).expect("the folder can be read") {
            let path = entry.expect("the folder can be read").path();
            if path.is_dir() {
                fs_err::remove_dir_all(path).expect("the folder can be removed");
            } else {
                fs_err::remove_file(path).expect("the file can be removed");
            }
        }
        folder
    }

    /// Writes one file into an empty folder.
    pub fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.empty().join(name);
        write(&path, content);
        path
    }

    /// Panics if there is anything beside the folder for files, or a temporary file was left behind.
    pub fn assert_contained(&self) {
        let names = |folder: &Path| -> Vec<String> {
            let entries = fs_err::read_dir(folder).expect("the folder can be read");
            let mut names: Vec<String> = entries
                .map(|entry| entry.expect("the folder can be read").file_name())
                .map(|name| name.to_string_lossy().into_owned())
                .collect();
            names.sort();
            names
        };
        assert_eq!(names(&self.root), ["files", "temporary"], "written outside the folder");
        assert!(names(&self.root.join("temporary")).is_empty(), "a temporary file was left behind");
    }
}

/// Writes a file and the folders above it.
pub fn write(path: &Path, content: &[u8]) {
    let folder = path.parent().expect("a file is in a folder");
    fs_err::create_dir_all(folder).expect("the folder can be made");
    fs_err::write(path, content).expect("the file can be written");
}

/// The files of an input, `N` of them; those that are missing are empty.
pub fn split<const N: usize>(input: &[u8]) -> [&[u8]; N] {
    let mut rest = input;
    std::array::from_fn(|index| {
        let at = rest.windows(SEPARATOR.len()).position(|window| window == SEPARATOR);
        match at.filter(|_| index + 1 < N) {
            Some(at) => {
                let part = &rest[..at];
                rest = &rest[at + SEPARATOR.len()..];
                part
            }
            None => std::mem::take(&mut rest),
        }
    })
}

/// A folder of the repository.
pub fn repository(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(folder)
}
