use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc::Sender;

use anyhow::{Context, Result};
use nsmc_experiment::ProgressEvent;

use crate::nsmc::Nsmc;
use crate::train::{Prepared, Run};
use crate::workspace::Workspace;

/// A run at work: a process of `nsmc`.
pub(crate) struct Process {
    pub(crate) child: Child,
    prepared: Prepared,
}

/// What a run says. Each is sent with the run's place in the plan.
pub(crate) enum Message {
    /// How far it is.
    Event(ProgressEvent),
    /// A line of its stderr that is no event: a warning, an error.
    Line(String),
    /// It closed its stderr: it has ended, or is about to.
    Closed,
}

impl Process {
    /// Starts a run; what it says goes to `messages` as from `job`. None if it is done.
    pub(crate) fn start(
        workspace: &Workspace,
        nsmc: &Nsmc,
        run: &Run,
        threads: Option<usize>,
        job: usize,
        messages: &Sender<(usize, Message)>,
    ) -> Result<Option<Self>> {
        let Some(mut prepared) = run.prepare(false)? else { return Ok(None) };
        prepared.arguments.push("--progress-json".into());
        let mut command = nsmc.command(workspace, &prepared.arguments);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        if let Some(threads) = threads {
            command.env("RAYON_NUM_THREADS", threads.to_string());
        }
        // Ctrl-C goes to a terminal's whole process group; this program passes it on, once.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut child = command.spawn().with_context(|| format!("{}", nsmc.path().display()))?;
        let stderr = child.stderr.take().context("stderr was piped")?;
        let messages = messages.clone();
        std::thread::spawn(move || {
            // A receiver that has gone away has no more interest.
            for line in BufReader::new(stderr).split(b'\n') {
                let Ok(line) = line else { break };
                let line = String::from_utf8_lossy(&line).into_owned();
                let message = match ProgressEvent::parse(&line) {
                    Some(event) => Message::Event(event),
                    None if line.trim().is_empty() => continue,
                    None => Message::Line(line),
                };
                if messages.send((job, message)).is_err() {
                    return;
                }
            }
            let _ = messages.send((job, Message::Closed));
        });
        Ok(Some(Self { child, prepared }))
    }

    /// Waits for the process; true if it was successful.
    pub(crate) fn end(mut self) -> Result<std::process::ExitStatus> {
        let status = self.child.wait()?;
        self.prepared.close()?;
        Ok(status)
    }
}
