use std::process::Command;

use anyhow::{Context, Result};

use crate::args::SlurmTask;
use crate::grid::Stop;
use crate::say;
use crate::slurm::submission::{Settled, Submission};
use crate::workspace::Workspace;

/// A task of an array, on the node that Slurm chose: becomes the process of its run.
pub(crate) fn run(workspace: &Workspace, args: &SlurmTask) -> Result<()> {
    match command(workspace, args)? {
        Some(command) => Err(replace(command)),
        None => Ok(()),
    }
}

/// The process of the run; none if it is done.
pub(super) fn command(workspace: &Workspace, args: &SlurmTask) -> Result<Option<Command>> {
    let missing = || {
        format!(
            "{}: task {} of job {} is not of what was submitted last",
            args.folder.display(),
            args.task,
            args.job
        )
    };
    let submission = Submission::read(&args.folder)?.with_context(missing)?;
    let task = submission.task(args.job, args.task).with_context(missing)?;
    let settled = task.settled(&workspace.folder(&submission.runs))?;
    let Settled { run, choice } = settled.with_context(|| {
        format!("{}: its trials are not done, so that what it is is not known", task.id)
    })?;
    if let Some(choice) = &choice {
        say(choice);
    }
    let Some(prepared) = run.prepare_patiently(false, &Stop::default())? else {
        say(&format!("{} is done", run.config.run_id()));
        return Ok(None);
    };
    let nsmc = submission.nsmc(&args.folder);
    Ok(Some(nsmc.command(workspace, &prepared.arguments)))
}

/// Puts the command into the place of this process; comes back only if it cannot be started.
#[cfg(unix)]
fn replace(mut command: Command) -> anyhow::Error {
    let error = std::os::unix::process::CommandExt::exec(&mut command);
    anyhow::Error::new(error).context(format!("{}", command.get_program().display()))
}

#[cfg(not(unix))]
fn replace(_: Command) -> anyhow::Error {
    anyhow::anyhow!("Slurm runs on Unix alone")
}
