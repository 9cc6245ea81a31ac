use std::fmt::{self, Display, Formatter};
use std::path::Path;

use crate::grid::Plan;
use crate::slurm::Submitting;
use crate::slurm::submission::{Place, Submission};

/// A batch script of one array.
pub(super) struct Script<'a> {
    pub(super) plan: &'a Plan,
    pub(super) submitting: &'a Submitting<'a>,
    pub(super) folder: &'a Path,
    pub(super) tasks: usize,
    /// The most of them at once; none leaves it to Slurm.
    pub(super) at_once: Option<usize>,
    /// The tasks that must be successful before.
    pub(super) after: &'a [Place],
}

/// Before a job's time is over it is told so, to write a checkpoint: seconds.
const NOTICE: usize = 120;

impl Script<'_> {
    /// This program's own options, each a word.
    fn own(&self) -> Vec<String> {
        let at_once = self.at_once.map(|most| format!("%{most}")).unwrap_or_default();
        // In a file's name Slurm reads a percent sign as the start of a pattern.
        let log = self.folder.join("log").display().to_string().replace('%', "%%");
        let mut options = vec![
            format!("--job-name=nsmc-{}", self.plan.profile.name),
            format!("--array=0-{}{at_once}", self.tasks - 1),
            format!("--output={log}/%A_%a.txt"),
            "--open-mode=append".into(),
            "--requeue".into(),
            format!("--signal=B:TERM@{NOTICE}"),
        ];
        if !self.after.is_empty() {
            let after: Vec<String> =
                self.after.iter().map(|place| format!("{}_{}", place.job, place.task)).collect();
            options.push(format!("--dependency=afterok:{}", after.join(":")));
            options.push("--kill-on-invalid-dep=yes".into());
        }
        options
    }

    /// All options as words of `sbatch`'s command line, which, unlike lines of the script, no variable
    /// of the environment overrides; those that were given last, for of two the later counts.
    pub(super) fn words(&self) -> Vec<String> {
        let given = self.submitting.sbatch.iter();
        let given =
            given.flat_map(|option| shlex::split(option).expect("checked when it was read"));
        self.own().into_iter().chain(given).collect()
    }
}

impl Display for Script<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "#!/bin/bash")?;
        writeln!(f, "# Written and submitted by `cargo xtask reproduce --launcher slurm`.")?;
        for option in self.own() {
            match option.split_once('=').filter(|(_, value)| value.contains(char::is_whitespace)) {
                Some((name, value)) => writeln!(f, "#SBATCH {name}=\"{value}\"")?,
                None => writeln!(f, "#SBATCH {option}")?,
            }
        }
        for option in self.submitting.sbatch {
            writeln!(f, "#SBATCH {option}")?;
        }
        writeln!(f, "\ncd {} || exit", quoted(&self.submitting.workspace.root))?;
        writeln!(f, "# As many threads as Slurm gave cores.")?;
        writeln!(f, "export RAYON_NUM_THREADS=\"$SLURM_CPUS_ON_NODE\"")?;
        writeln!(f, "# Becomes `nsmc train`, so that Slurm's signals reach it.")?;
        writeln!(
            f,
            "exec {} slurm-task {} \"$SLURM_ARRAY_JOB_ID\" \"$SLURM_ARRAY_TASK_ID\"",
            quoted(&self.folder.join(Submission::XTASK)),
            quoted(self.folder),
        )
    }
}

/// A path as one word of a shell.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}
