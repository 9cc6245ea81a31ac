use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::say;

/// Slurm's commands.
pub(super) struct Slurm {
    sbatch: PathBuf,
    squeue: PathBuf,
    scontrol: PathBuf,
}

/// `MaxArraySize` where a cluster does not set it.
const MAX_ARRAY_SIZE: usize = 1001;

/// The jobs of this user that Slurm has not done with, by job and task.
#[derive(Debug, Default)]
pub(super) struct Queue(BTreeMap<(u64, usize), String>);

impl Slurm {
    /// Those that a shell would find.
    pub(super) fn of_path() -> Self {
        Self { sbatch: "sbatch".into(), squeue: "squeue".into(), scontrol: "scontrol".into() }
    }

    #[cfg(test)]
    pub(super) fn at(folder: &Path) -> Self {
        let [sbatch, squeue, scontrol] =
            ["sbatch", "squeue", "scontrol"].map(|name| folder.join(name));
        Self { sbatch, squeue, scontrol }
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

    /// The most tasks that an array may have, numbered from 0.
    pub(super) fn most_tasks(&self) -> Result<usize> {
        match output(&self.scontrol, ["show", "config"].map(OsStr::new)) {
            Ok(config) => most_tasks(&config),
            // Not everywhere may everyone ask. Of an array that is too large, `sbatch` says so.
            Err(error) => {
                say(&format!("{error:#}; taken for Slurm's own: MaxArraySize {MAX_ARRAY_SIZE}"));
                Ok(MAX_ARRAY_SIZE)
            }
        }
    }
}

/// The same by what `scontrol show config` says.
fn most_tasks(config: &str) -> Result<usize> {
    let value = |key: &str| {
        let mut entries = config.lines().filter_map(|line| line.split_once('='));
        entries.find_map(|(name, value)| (name.trim() == key).then_some(value.trim()))
    };
    let number = |key: &str, text: &str| {
        text.parse::<usize>().with_context(|| {
            format!("`scontrol show config`: {key}: expected a number, found \"{text}\"")
        })
    };
    let key = "MaxArraySize";
    // The largest number of a task is one less.
    let size = value(key).map_or(Ok(MAX_ARRAY_SIZE), |text| number(key, text))?;
    let key = "max_array_tasks";
    let parameters = value("SchedulerParameters").into_iter().flat_map(|text| text.split(','));
    let mut limits = parameters.filter_map(|it| it.trim().split_once('=').filter(|it| it.0 == key));
    let limit = limits.next().map_or(Ok(size), |(_, text)| number(key, text))?;
    let most = size.min(limit);
    ensure!(
        most > 0,
        "the cluster takes no job arrays (`scontrol show config`: MaxArraySize = {size}): run the \
         grid without `--launcher slurm`, inside a job of your own"
    );
    Ok(most)
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
    fn an_array_has_as_many_tasks_as_the_cluster_takes() {
        let most = |size: &str, parameters: &str| {
            most_tasks(&format!(
                "Configuration data as of 2026-01-01T00:00:00\nMaxArraySize            = {size}\n\
                 MaxJobCount             = 10000\nSchedulerParameters     = {parameters}\n\n\
                 Slurmctld(primary) at one is UP\n"
            ))
        };
        let usual = "sched_interval=2,bf_interval=2";
        assert_eq!(most("1001", usual).unwrap(), 1001);
        assert_eq!(most("4", "(null)").unwrap(), 4);
        let limited = format!("{usual},max_array_tasks=500");
        assert_eq!(most("100001", &limited).unwrap(), 500);
        assert_eq!(most("100", &limited).unwrap(), 100);
        assert_eq!(most_tasks("").unwrap(), 1001);
        for (size, expected) in [("0", "takes no job arrays"), ("many", "found \"many\"")] {
            let message = most(size, usual).unwrap_err().to_string();
            assert!(message.contains(expected) && message.contains("MaxArraySize"), "{message}");
        }
    }

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
