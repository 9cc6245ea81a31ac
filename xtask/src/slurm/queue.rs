use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Slurm's commands.
pub(super) struct Slurm {
    sbatch: PathBuf,
    squeue: PathBuf,
}

/// The jobs of this user that Slurm has not done with, by job and task.
#[derive(Debug, Default)]
pub(super) struct Queue(BTreeMap<(u64, usize), String>);

impl Slurm {
    /// Those that a shell would find.
    pub(super) fn of_path() -> Self {
        Self { sbatch: "sbatch".into(), squeue: "squeue".into() }
    }

    #[cfg(test)]
    pub(super) fn at(folder: &Path) -> Self {
        Self { sbatch: folder.join("sbatch"), squeue: folder.join("squeue") }
    }

    /// Submits a script with these options and gives its job's number.
    pub(super) fn submit(&self, script: &Path, options: &[String]) -> Result<u64> {
        let words = std::iter::once("--parsable").chain(options.iter().map(String::as_str));
        let words = words.map(OsStr::new).chain([script.as_os_str()]);
        // The number, and behind a semicolon the cluster's name.
        let said = output(&self.sbatch, words)
            .with_context(|| format!("{}: not submitted", script.display()))?;
        let number = said.trim().split(';').next().unwrap_or_default();
        number.parse().with_context(|| format!("expected `sbatch` to say a job, found \"{said}\""))
    }

    /// What is queued and at work.
    pub(super) fn queue(&self) -> Result<Queue> {
        // All: of partitions that are hidden, too.
        let arguments = ["--me", "--all", "--array", "--noheader", "--format=%F|%K|%T|%r"];
        Ok(Queue::parse(&output(&self.squeue, arguments.map(OsStr::new))?))
    }
}

fn output<'a>(program: &Path, arguments: impl IntoIterator<Item = &'a OsStr>) -> Result<String> {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        // A person's own view of the queue would hide tasks, and SLURM_CLUSTERS, unlike this other name
        // for it, is heeded by both.
        if name.to_string_lossy().starts_with("SQUEUE_") || name == "SBATCH_CLUSTERS" {
            command.env_remove(name);
        }
    }
    let output = command.args(arguments).output().with_context(|| {
        format!(
            "`{}` cannot be started; `--launcher slurm` needs Slurm's commands on this machine, as \
             the login node of a cluster has them",
            program.display()
        )
    })?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "`{}`: {}", program.display(), said.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

impl Queue {
    /// Lines of job, task, state and reason; those that are no task of an array are others' matter.
    fn parse(text: &str) -> Self {
        let entry = |line: &str| {
            let fields: Vec<&str> = line.split('|').collect();
            let [job, task, state, reason] = fields.as_slice() else { return None };
            let state = match (*state, *reason) {
                ("PENDING", "Dependency") => "waits for its trials".into(),
                ("PENDING", "DependencyNeverSatisfied") => "never starts: a trial failed".into(),
                // Slurm has not looked at it yet.
                ("PENDING", "None") => "queued".into(),
                ("PENDING", reason) => format!("queued ({reason})"),
                (state, _) => state.to_lowercase(),
            };
            Some(((job.trim().parse().ok()?, task.trim().parse().ok()?), state))
        };
        Self(text.lines().filter_map(entry).collect())
    }

    /// How a task stands; none if Slurm has done with it.
    pub(super) fn state(&self, job: u64, task: usize) -> Option<String> {
        self.0.get(&(job, task)).cloned()
    }

    pub(super) fn holds(&self, job: u64, task: usize) -> bool {
        self.0.contains_key(&(job, task))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_are_told_from_jobs_of_other_kinds() {
        let queue = Queue::parse(
            "12|0|RUNNING|None\n12|1|PENDING|Resources\n13|0|PENDING|Dependency\n9|N/A|RUNNING|None\n",
        );
        let state = |job, task| queue.state(job, task).unwrap_or_default();
        assert_eq!(state(12, 0), "running");
        assert_eq!(state(12, 1), "queued (Resources)");
        assert_eq!(state(13, 0), "waits for its trials");
        assert_eq!(queue.0.len(), 3);
    }
}
