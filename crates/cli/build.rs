//! Tells the program which source it is built from. Outside of git, or of the workspace, it is told
//! nothing, and the build goes on.

use std::path::Path;
use std::process::Command;

use sha2::{Digest, Sha256};

/// What the program is built from, relative to the workspace.
const SOURCES: [&str; 5] =
    ["Cargo.toml", "Cargo.lock", "rust-toolchain.toml", ".cargo/config.toml", "crates"];

/// The crates that decide numbers.
const CRATES: [&str; 2] = ["burn", "tokenizers"];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let Some(root) = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2) else { return };
    // The flag of a changed source must not be older than the source.
    for source in SOURCES {
        rerun_if_changed(&root.join(source));
    }
    if let Ok(lock) = fs_err::read(root.join("Cargo.lock")) {
        println!("cargo::rustc-env=NSMC_LOCK_SHA256={}", hex(&Sha256::digest(&lock)));
        println!("cargo::rustc-env=NSMC_CRATES={}", versions(&String::from_utf8_lossy(&lock)));
    }
    // A copy of the source within another repository is not of that repository's commit.
    let manifest = ["ls-files", "--error-unmatch", "crates/cli/Cargo.toml"];
    let (Some(_), Some(commit)) = (git(root, &manifest), git(root, &["rev-parse", "HEAD"])) else {
        return;
    };
    let status = ["--no-optional-locks", "status", "--porcelain", "--"];
    let Some(changes) = git(root, &[&status[..], &SOURCES].concat()) else { return };
    println!("cargo::rustc-env=NSMC_COMMIT={commit}");
    println!("cargo::rustc-env=NSMC_DIRTY={}", !changes.is_empty());
    // A commit changes no source: HEAD's log tells of it, or where there is none its branch.
    let branch = git(root, &["symbolic-ref", "--quiet", "HEAD"]);
    for place in ["HEAD", "logs/HEAD", "packed-refs"].into_iter().chain(branch.as_deref()) {
        if let Some(path) = git(root, &["rev-parse", "--git-path", place]) {
            rerun_if_changed(&root.join(path));
        }
    }
}

/// cargo takes a file that is not there for one that changed each time.
fn rerun_if_changed(path: &Path) {
    if path.exists() {
        println!("cargo::rerun-if-changed={}", path.display());
    }
}

/// What git prints; none if it fails or is not there.
fn git(root: &Path, arguments: &[&str]) -> Option<String> {
    let mut git = Command::new("git");
    for variable in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"] {
        git.env_remove(variable);
    }
    let output = git.current_dir(root).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

/// `NAME=VERSION` of each of the crates, as `Cargo.lock` has them.
fn versions(lock: &str) -> String {
    let version = |name: &str| {
        let (_, entry) = lock.split_once(&format!("\nname = \"{name}\"\nversion = \""))?;
        Some(format!("{name}={}", entry.split_once('"')?.0))
    };
    CRATES.into_iter().filter_map(version).collect::<Vec<_>>().join(",")
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
