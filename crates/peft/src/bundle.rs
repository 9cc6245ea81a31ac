use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use burn::store::bridge;
use burn::store::burn_pack::Tensor as PackTensor;
use nsmc_bert::{Tensors, read_tensors};
use serde_json::Value;
use zip::ZipArchive;

use crate::PeftError;

/// Most entries that an archive may have.
const MAX_ENTRIES: usize = 1_000;
/// Most bytes that an archive may unpack to: ten times the largest adapter of mBERT.
const MAX_BYTES: u64 = 2 << 30;

/// The files of an adapter: a folder, or a zip archive unpacked into one.
pub(crate) struct Bundle {
    folder: PathBuf,
    /// What errors are reported under.
    source: PathBuf,
    _unpacked: Option<tempfile::TempDir>,
}

impl Bundle {
    /// Opens a folder or a zip archive.
    ///
    /// An archive's files are taken by their last names, as AdapterHub does. One with a path that
    /// leaves it, with two files of one name, or that is larger than it should be is refused, and so
    /// are links; what macOS adds (`._*`, `__MACOSX`) is passed over.
    pub(crate) fn open(source: &Path) -> Result<Self, PeftError> {
        let metadata = fs_err::metadata(source)?;
        if metadata.is_dir() {
            return Ok(Self { folder: source.into(), source: source.into(), _unpacked: None });
        }
        let unpacked = tempfile::tempdir()?;
        unpack(source, unpacked.path(), MAX_BYTES)?;
        Ok(Self {
            folder: unpacked.path().into(),
            source: source.into(),
            _unpacked: Some(unpacked),
        })
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.folder.join(name).is_file()
    }

    /// A file as a person knows it.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.source.join(name)
    }

    pub(crate) fn json(&self, name: &str) -> Result<Value, PeftError> {
        if !self.has(name) {
            return Err(self.config_error(name, "no such file"));
        }
        let text = fs_err::read_to_string(self.folder.join(name))?;
        serde_json::from_str(&text).map_err(|error| self.config_error(name, &error.to_string()))
    }

    /// The tensors of the first of these files that is there, with its path. Any others hold the same:
    /// of two that do not, one is older, and which the libraries read depends on their arguments.
    pub(crate) fn tensors(&self, names: &[&str]) -> Result<(PathBuf, Tensors), PeftError> {
        let mut there = names.iter().filter(|name| self.has(name));
        let Some(name) = there.next() else {
            return Err(
                self.config_error("", &format!("no weights: expected {}", names.join(" or ")))
            );
        };
        let tensors = read_tensors(&self.folder.join(name))?;
        for other in there {
            let path = self.folder.join(other);
            if !same(&tensors, &read_tensors(&path)?, &path)? {
                let message = format!(
                    "it holds other weights than {name} beside it: one of them was saved later; \
                     delete the other"
                );
                return Err(self.config_error(other, &message));
            }
        }
        Ok((self.path(name), tensors))
    }

    pub(crate) fn config_error(&self, name: &str, message: &str) -> PeftError {
        let path = if name.is_empty() { self.source.clone() } else { self.path(name) };
        PeftError::Config { path, message: message.into() }
    }
}

/// Whether two files hold the same tensors, to the last bit.
fn same(one: &Tensors, other: &Tensors, path: &Path) -> Result<bool, PeftError> {
    if !one.keys().eq(other.keys()) {
        return Ok(false);
    }
    let data = |tensor: &PackTensor| {
        bridge::to_data(tensor).map_err(|error| PeftError::Config {
            path: path.into(),
            message: format!("a tensor cannot be read: {error}"),
        })
    };
    for (a, b) in one.values().zip(other.values()) {
        if data(a)? != data(b)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn unpack(source: &Path, target: &Path, most: u64) -> Result<(), PeftError> {
    let error = |message: String| PeftError::Archive { path: source.into(), message };
    let mut archive = ZipArchive::new(fs_err::File::open(source)?)
        .map_err(|source| error(format!("not a folder and not a zip archive: {source}")))?;
    if archive.len() > MAX_ENTRIES {
        let (found, most) = (archive.len(), MAX_ENTRIES);
        return Err(error(format!("expected at most {most} entries, found {found}")));
    }
    let mut left = most;
    for index in 0..archive.len() {
        let entry = archive
            .by_index(index)
            .map_err(|source| error(format!("entry {index} is damaged: {source}")))?;
        if entry.is_dir() {
            continue;
        }
        let name = entry.name().map_err(|_| error(format!("entry {index} has no valid name")))?;
        let name = name.into_owned();
        if entry.is_symlink() {
            return Err(error(format!("`{name}` is a link")));
        }
        let Some(path) = entry.enclosed_name() else {
            return Err(error(format!("`{name}` leaves the archive")));
        };
        let Some(file) = path.file_name().and_then(|name| name.to_str()) else { continue };
        let macos = file.starts_with("._") || path.starts_with("__MACOSX");
        let wanted = [".json", ".bin", ".safetensors"].iter().any(|kind| file.ends_with(kind));
        if macos || !wanted {
            continue;
        }
        let target = target.join(file);
        if target.exists() {
            return Err(error(format!("there are two files `{file}`")));
        }
        // What an entry says of its size is not believed: no more than is left is read.
        let copied = copy(&mut entry.take(left + 1), &mut fs_err::File::create(&target)?)?
            .map_err(|source| error(format!("`{name}` is damaged: {source}")))?;
        left = left
            .checked_sub(copied)
            .ok_or_else(|| error(format!("it unpacks to more than {most} bytes")))?;
    }
    Ok(())
}

/// Copies all of `input` and counts its bytes.
///
/// What fails in the input is inside, what fails in the output outside: a full disk is no damaged
/// archive.
fn copy(input: &mut impl Read, output: &mut impl Write) -> io::Result<io::Result<u64>> {
    let mut buffer = vec![0; 64 << 10];
    let mut copied = 0;
    loop {
        match input.read(&mut buffer) {
            Ok(0) => return Ok(Ok(copied)),
            Ok(read) => {
                output.write_all(&buffer[..read])?;
                copied += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Ok(Err(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use zip::ZipWriter;
    use zip::write::SimpleFileOptions;

    use super::*;

    fn archive(entries: &[(&str, &[u8])]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut writer = ZipWriter::new(file.reopen().unwrap());
        for (name, bytes) in entries {
            writer.start_file(*name, SimpleFileOptions::default()).unwrap();
            writer.write_all(bytes).unwrap();
        }
        writer.finish().unwrap();
        file
    }

    fn refused(entries: &[(&str, &[u8])]) -> String {
        match Bundle::open(archive(entries).path()) {
            Ok(_) => panic!("{entries:?} was unpacked"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn files_are_taken_by_their_last_names_and_junk_is_passed_over() {
        let file = archive(&[
            ("__MACOSX/._adapter_config.json", b"junk"),
            ("ko/._adapter_config.json", b"junk"),
            ("ko/adapter_config.json", b"{\"name\": \"ko\"}"),
            ("ko/README.txt", b"hello"),
        ]);
        let bundle = Bundle::open(file.path()).unwrap();
        assert_eq!(bundle.json("adapter_config.json").unwrap()["name"], "ko");
        assert!(!bundle.has("README.txt") && !bundle.has("._adapter_config.json"));
    }

    #[test]
    fn an_unsafe_archive_is_refused() {
        assert!(refused(&[("../evil.json", b"{}")]).contains("leaves the archive"));
        assert!(refused(&[("a/x.json", b"{}"), ("b/x.json", b"{}")]).contains("two files"));
        let many: Vec<(String, &[u8])> =
            (0..=MAX_ENTRIES).map(|index| (format!("{index}.json"), &b"{}"[..])).collect();
        let many: Vec<(&str, &[u8])> = many.iter().map(|(name, b)| (name.as_str(), *b)).collect();
        assert!(refused(&many).contains("at most"));
        let text = tempfile::NamedTempFile::new().unwrap();
        fs_err::write(text.path(), "no archive").unwrap();
        let Err(error) = Bundle::open(text.path()) else { panic!() };
        assert!(error.to_string().contains("not a zip archive"), "{error}");
    }

    #[test]
    fn a_bomb_is_refused_before_it_fills_the_disk() {
        let zeros = vec![0; 700];
        let file = archive(&[("0.bin", &zeros), ("1.bin", &zeros), ("2.bin", &zeros)]);
        let target = tempfile::tempdir().unwrap();
        unpack(file.path(), target.path(), 2_100).unwrap();
        let target = tempfile::tempdir().unwrap();
        let error = unpack(file.path(), target.path(), 2_099).unwrap_err();
        assert!(error.to_string().contains("unpacks to more than 2099 bytes"), "{error}");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_full_disk_is_no_damaged_archive() {
        // Every write to this device finds it full.
        let mut full = fs_err::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let error = copy(&mut &b"whole"[..], &mut full).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);

        let file = archive(&[("x.bin", &[7; 500])]);
        let mut bytes = fs_err::read(file.path()).unwrap();
        bytes[40] ^= 0xff;
        fs_err::write(file.path(), bytes).unwrap();
        let target = tempfile::tempdir().unwrap();
        let error = unpack(file.path(), target.path(), 2_099).unwrap_err();
        assert!(error.to_string().contains("is damaged"), "{error}");
    }
}
