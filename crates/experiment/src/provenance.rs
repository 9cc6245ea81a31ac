use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What a run was made of and by, beside its configuration. Nothing in it names a machine or a
/// place on one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Provenance {
    /// The git commit that the program was built from; none if it was built outside of git.
    pub commit: Option<String>,
    /// Whether the program's sources differed from that commit.
    pub dirty: Option<bool>,
    /// sha256 of the `Cargo.lock` that it was built with.
    pub lock_sha256: Option<String>,
    /// Versions of the crates that decide numbers.
    pub crates: BTreeMap<String, String>,
    /// sha256 of each file that the run read, by the configuration's key and, of a folder, the
    /// file's name: `data.train`, `model/config.json`, `method.sources.ko/adapter.safetensors`.
    pub inputs: BTreeMap<String, String>,
}

/// From a start of the process to its end. A run that was stopped, or killed, has several.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Stretch {
    /// When it started, in seconds since 1970 (UTC).
    pub started: u64,
    /// Its wall time; of a process that was killed, to within a second.
    pub seconds: f64,
    /// Largest memory of the process, as [`crate::RunResults::peak_memory_mib`].
    pub peak_memory_mib: Option<f64>,
    /// The program, as [`Provenance::program`] calls it; none in older records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<String>,
    /// What it computed on, as [`crate::RunRecord::device`]; none in older records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
}

impl Provenance {
    /// The program in a word: its commit, with `-dirty` behind it if its sources differed from that;
    /// none if the commit is not known.
    pub fn program(&self) -> Option<String> {
        let commit = self.commit.as_deref()?;
        Some(if self.dirty == Some(true) { format!("{commit}-dirty") } else { commit.into() })
    }
}

impl Stretch {
    /// The programs that worked on a run, one after the other, without what is not known.
    pub fn programs(stretches: &[Self]) -> Vec<&str> {
        changes(stretches.iter().filter_map(|stretch| stretch.program.as_deref()))
    }

    /// Likewise what they computed on.
    pub fn devices(stretches: &[Self]) -> Vec<&str> {
        changes(stretches.iter().filter_map(|stretch| stretch.device.as_deref()))
    }

    /// Wall time of all stretches.
    pub fn total_seconds(stretches: &[Self]) -> f64 {
        stretches.iter().map(|stretch| stretch.seconds).sum()
    }

    /// The largest memory of any.
    pub fn peak_memory_mib(stretches: &[Self]) -> Option<f64> {
        stretches.iter().filter_map(|stretch| stretch.peak_memory_mib).reduce(f64::max)
    }
}

fn changes<'a>(each: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut changes: Vec<&str> = each.collect();
    changes.dedup();
    changes
}
