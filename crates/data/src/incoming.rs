use std::path::Path;

use tempfile::NamedTempFile;

/// A file that is to get its name when it is whole. It is one that others may read, as far as the umask
/// lets them: tempfile's own are their owner's alone, and stay so under their names.
pub(crate) fn incoming(folder: &Path) -> std::io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix("incoming-").suffix(".partial");
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.tempfile_in(folder)
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn it_may_be_read_by_whoever_may_read_any_other_file() {
        let folder = tempfile::tempdir().unwrap();
        let [named, other] = ["named", "other"].map(|name| folder.path().join(name));
        incoming(folder.path()).unwrap().persist(&named).unwrap();
        fs_err::write(&other, "").unwrap();
        let mode = |path: &Path| fs_err::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&named), mode(&other));
    }
}
