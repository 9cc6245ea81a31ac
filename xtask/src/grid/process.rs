use std::io::{BufRead, BufReader};
use std::process::{ExitStatus, Stdio};
use std::sync::mpsc::Sender;

use anyhow::{Context, Result};
use nsmc_experiment::ProgressEvent;

use crate::holder::Attempt;
use crate::nsmc::{Nsmc, Tied};
use crate::train::{Prepared, Run};
use crate::workspace::Workspace;

/// A run at work: a process of `nsmc`.
pub(crate) struct Process {
    pub(crate) tied: Tied,
    /// The GPU it has.
    pub(crate) gpu: Option<u16>,
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
    /// Starts a run, unless another process is at work on it; what it says goes to `messages` as
    /// from `job`. None if it is done.
    pub(crate) fn start(
        workspace: &Workspace,
        nsmc: &Nsmc,
        run: &Run,
        gpu: Option<u16>,
        threads: Option<usize>,
        job: usize,
        messages: &Sender<(usize, Message)>,
    ) -> Result<Attempt<Option<Self>>> {
        let mut prepared = match run.prepare(false)? {
            Attempt::Made(Some(prepared)) => prepared,
            Attempt::Made(None) => return Ok(Attempt::Made(None)),
            Attempt::Held(holder) => return Ok(Attempt::Held(holder)),
        };
        prepared.arguments.push("--progress-json".into());
        let nsmc = nsmc.on(gpu.as_slice());
        let mut command = nsmc.command(workspace, &prepared.arguments);
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        if let Some(threads) = threads {
            command.env("RAYON_NUM_THREADS", threads.to_string());
        }
        let mut tied = nsmc.tie(command)?;
        let stderr = tied.child.stderr.take().context("stderr was piped")?;
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
        Ok(Attempt::Made(Some(Self { tied, gpu, prepared })))
    }

    /// Waits for the process; how it ended.
    pub(crate) fn end(mut self) -> Result<ExitStatus> {
        let status = self.tied.wait()?;
        self.prepared.close()?;
        Ok(status)
    }
}
