use std::fmt::{Display, Formatter, Result};
use std::path::Path;

use crate::grid::Plan;
use crate::slurm::Submitting;
use crate::slurm::submission::{Place, Submission};

/// A batch script of one array.
pub(super) struct Script<'a> {
    pub(super) plan: &'a Plan,
    pub(super) submitting: &'a Submitting<'a>,
    pub(super) folder: &'a Path,
    /// Its place in the submission.
    pub(super) array: usize,
    pub(super) tasks: usize,
    /// The tasks that must be successful before.
    pub(super) after: &'a [Place],
}

/// Before a job's time is over it is told so, to write a checkpoint: seconds.
const NOTICE: usize = 120;

impl Display for Script<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let at_once = self.submitting.at_once.map(|most| format!("%{most}")).unwrap_or_default();
        // In a file's name Slurm reads a percent sign as the start of a pattern.
        let log = self.folder.join("log").display().to_string().replace('%', "%%");
        writeln!(f, "#!/bin/bash")?;
        writeln!(f, "# Written and submitted by `cargo xtask reproduce --launcher slurm`.")?;
        writeln!(f, "#SBATCH --job-name=nsmc-{}", self.plan.profile.name)?;
        writeln!(f, "#SBATCH --array=0-{}{at_once}", self.tasks - 1)?;
        writeln!(f, "#SBATCH --output=\"{log}/%A_%a.txt\"")?;
        writeln!(f, "#SBATCH --open-mode=append")?;
        writeln!(f, "#SBATCH --requeue")?;
        writeln!(f, "#SBATCH --signal=B:TERM@{NOTICE}")?;
        if !self.after.is_empty() {
            let after: Vec<String> =
                self.after.iter().map(|place| format!("{}_{}", place.job, place.task)).collect();
            writeln!(f, "#SBATCH --dependency=afterok:{}", after.join(":"))?;
            writeln!(f, "#SBATCH --kill-on-invalid-dep=yes")?;
        }
        // Last, for of two the later counts.
        for option in self.submitting.sbatch {
            writeln!(f, "#SBATCH {option}")?;
        }
        writeln!(f, "\ncd {} || exit", quoted(&self.submitting.workspace.root))?;
        writeln!(f, "# As many threads as Slurm gave cores.")?;
        writeln!(f, "export RAYON_NUM_THREADS=\"$SLURM_CPUS_ON_NODE\"")?;
        writeln!(f, "# Becomes `nsmc train`, so that Slurm's signals reach it.")?;
        writeln!(
            f,
            "exec {} slurm-task {} {} \"$SLURM_ARRAY_TASK_ID\"",
            quoted(&self.folder.join(Submission::XTASK)),
            quoted(self.folder),
            self.array
        )
    }
}

/// A path as one word of a shell.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}
