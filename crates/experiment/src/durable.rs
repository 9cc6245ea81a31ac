//! Files that a power failure leaves whole, or leaves as they were.
//!
//! A rename is no promise by itself: after a power failure the new name may be there, and be of an
//! empty file. The content has to be on the disk first, and after the rename the directory.

use std::io::{ErrorKind, Result, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::{hex, sha256_file, sha256_hex};

/// The first line of a sealed file, before its hash.
const SEAL: &str = "# sha256 of the lines below: ";

/// Writes a file that appears whole or not at all, and is there when this returns.
///
/// In between it lies beside its place, with `.partial` behind its name.
pub fn write_durably(path: &Path, content: impl AsRef<[u8]>) -> Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    let partial = path.with_file_name(name);
    let mut file = fs_err::File::create(&partial)?;
    file.write_all(content.as_ref())?;
    file.sync_all()?;
    drop(file);
    fs_err::rename(&partial, path)?;
    sync_entries(parent(path))
}

/// Gives a folder another name, which it has whole or not at all: all that is in it is on the disk
/// before, and the name when this returns. A folder that has the name goes in between.
pub fn rename_folder_durably(from: &Path, to: &Path) -> Result<()> {
    sync_folder(from)?;
    if to.exists() {
        fs_err::remove_dir_all(to)?;
    }
    fs_err::rename(from, to)?;
    sync_entries(parent(to))
}

/// Makes a folder and those that it is in, and waits until they are on the disk.
pub fn create_folder_durably(folder: &Path) -> Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let parent = parent(folder);
    if parent == folder {
        // A root that is not there, or no path at all: it is in nothing that could be made.
        return fs_err::create_dir(folder);
    }
    create_folder_durably(parent)?;
    match fs_err::create_dir(folder) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists && folder.is_dir() => Ok(()),
        made => made,
    }?;
    sync_entries(parent)
}

/// Waits until a folder's files and those of the folders in it are on the disk, and their names.
pub fn sync_folder(folder: &Path) -> Result<()> {
    for entry in fs_err::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_folder(&entry.path())?;
        } else {
            // Windows flushes no file that is opened to be read.
            fs_err::OpenOptions::new().read(true).write(true).open(entry.path())?.sync_all()?;
        }
    }
    sync_entries(folder)
}

/// Waits until the names in a folder are on the disk.
pub fn sync_entries(folder: &Path) -> Result<()> {
    if !cfg!(unix) {
        // There a directory cannot be opened as a file; its names are in the journal.
        return Ok(());
    }
    match fs_err::File::open(folder)?.sync_all() {
        // Some network file systems know no such thing.
        Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => {
            Ok(())
        }
        synced => synced,
    }
}

/// Lines of TOML with their hash above them, in a comment: half of a list is valid TOML, and would be
/// taken for a short one.
pub fn seal(lines: &str) -> String {
    format!("{SEAL}{}\n{lines}", sha256_hex(lines.as_bytes()))
}

/// The lines of a sealed file; none if they are not those that were written.
pub fn read_sealed(path: &Path) -> Result<Option<String>> {
    let Ok(text) = String::from_utf8(fs_err::read(path)?) else { return Ok(None) };
    let sealed = text.strip_prefix(SEAL).and_then(|sealed| sealed.split_once('\n'));
    let whole = sealed.filter(|(hash, lines)| *hash == sha256_hex(lines.as_bytes()));
    Ok(whole.map(|(_, lines)| lines.to_owned()))
}

/// The files of a folder, and of those in it, in one hash: the sha256 of a line for each, with its
/// sha256 and its path, as `sha256sum` prints them.
pub fn sha256_folder(folder: &Path) -> Result<String> {
    let mut files = Vec::new();
    list(folder, &mut files)?;
    let mut named: Vec<(String, &PathBuf)> = Vec::new();
    for file in &files {
        let name = file.strip_prefix(folder).unwrap_or(file).to_string_lossy().replace('\\', "/");
        named.push((name, file));
    }
    named.sort();
    let mut hasher = Sha256::new();
    for (name, file) in named {
        hasher.update(format!("{}  {name}\n", sha256_file(file)?));
    }
    Ok(hex(&hasher.finalize()))
}

fn list(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs_err::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() { list(&path, files)? } else { files.push(path) }
    }
    Ok(())
}

/// The folder that a path is in.
fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        Some(_) => Path::new("."),
        None => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_leaves_nothing_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fitted.toml");
        // What a process that was killed left behind.
        fs_err::write(folder.path().join("fitted.toml.partial"), "half of a longer fi").unwrap();
        for content in ["first", "second, longer", ""] {
            write_durably(&path, content).unwrap();
            assert_eq!(fs_err::read_to_string(&path).unwrap(), content);
            assert_eq!(fs_err::read_dir(folder.path()).unwrap().count(), 1);
        }
        let gone = folder.path().join("gone/fitted.toml");
        assert!(write_durably(&gone, "").unwrap_err().to_string().contains("gone"));
        assert!(!folder.path().join("gone").exists());
    }

    #[test]
    fn a_folder_takes_the_place_of_another_with_all_that_is_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let [from, to] = ["incoming", "last"].map(|name| folder.path().join(name));
        create_folder_durably(&from.join("inner/deep")).unwrap();
        create_folder_durably(&to).unwrap();
        fs_err::write(to.join("old"), "old").unwrap();
        fs_err::write(from.join("inner/deep/new"), "new").unwrap();
        rename_folder_durably(&from, &to).unwrap();
        assert_eq!(fs_err::read_to_string(to.join("inner/deep/new")).unwrap(), "new");
        assert!(!to.join("old").exists() && !from.exists());
        // What is not there replaces nothing.
        assert!(rename_folder_durably(&from, &to).is_err());
        assert!(to.join("inner/deep/new").is_file());
    }

    #[test]
    fn a_folder_that_is_in_none_is_an_error() {
        assert!(create_folder_durably(Path::new("")).is_err());
    }

    #[test]
    fn sealed_lines_come_back_and_no_part_of_them_does() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.toml");
        let lines = "step = 12\n[[epochs]]\nepoch = 1\n";
        write_durably(&path, seal(lines)).unwrap();
        assert_eq!(read_sealed(&path).unwrap().as_deref(), Some(lines));
        let sealed = fs_err::read(&path).unwrap();
        for length in 0..sealed.len() {
            fs_err::write(&path, &sealed[..length]).unwrap();
            assert_eq!(read_sealed(&path).unwrap(), None, "{length} bytes of {}", sealed.len());
        }
        for changed in [40, sealed.len() - 3] {
            for byte in [sealed[changed] ^ 1, 0xff] {
                let mut sealed = sealed.clone();
                sealed[changed] = byte;
                fs_err::write(&path, &sealed).unwrap();
                assert_eq!(read_sealed(&path).unwrap(), None, "byte {changed} is {byte}");
            }
        }
        fs_err::write(&path, lines).unwrap();
        assert_eq!(read_sealed(&path).unwrap(), None, "lines without a seal");
    }

    #[test]
    fn the_hash_of_a_folder_is_that_of_its_names_and_contents() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs_err::create_dir(path("b")).unwrap();
        fs_err::write(path("c"), "3").unwrap();
        fs_err::write(path("b/a"), "2").unwrap();
        let (two, three) = (sha256_hex(b"2"), sha256_hex(b"3"));
        let lines = format!("{two}  b/a\n{three}  c\n");
        assert_eq!(sha256_folder(folder.path()).unwrap(), sha256_hex(lines.as_bytes()));
        fs_err::rename(path("c"), path("d")).unwrap();
        assert_ne!(sha256_folder(folder.path()).unwrap(), sha256_hex(lines.as_bytes()));
    }
}
