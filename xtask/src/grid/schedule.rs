use std::collections::BTreeMap;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use anyhow::Result;

use crate::args::Options;
use crate::grid::display::Display;
use crate::grid::plan::{Plan, State};
use crate::grid::process::{Message, Process};
use crate::grid::stop::{Stop, pass_on};
use crate::nsmc::Nsmc;
use crate::workspace::Workspace;

/// How a grid ended.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// The runs that failed, each with why.
    pub(crate) failures: Vec<String>,
    /// A signal stopped it.
    pub(crate) stopped: bool,
}

/// How `nsmc` says why it failed.
const ERROR: &str = "error: ";

/// How runs are started.
pub(crate) struct Starting<'a> {
    pub(crate) workspace: &'a Workspace,
    pub(crate) options: &'a Options,
    pub(crate) nsmc: &'a Nsmc,
    /// Runs at once.
    pub(crate) jobs: usize,
    /// Threads of each; none leaves it to the program.
    pub(crate) threads: Option<usize>,
    pub(crate) stop: Stop,
}

/// Where a job of the plan stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stand {
    Open,
    AtWork,
    Done,
    Failed,
}

/// Runs what the plan has open, each as soon as what it waits for is done. A run that fails keeps
/// only those that wait for it from running. `seconds` is what each is expected to take.
pub(crate) fn run(
    plan: &mut Plan,
    starting: &Starting<'_>,
    seconds: &[Option<f64>],
    failed: BTreeMap<usize, String>,
) -> Result<Outcome> {
    let stand = |job: usize| match plan.jobs[job].state() {
        State::Done => Stand::Done,
        _ if failed.contains_key(&job) => Stand::Failed,
        _ => Stand::Open,
    };
    let stands: Vec<Stand> = (0..plan.jobs.len()).map(stand).collect();
    let open = stands.iter().filter(|&&stand| stand == Stand::Open).count();
    let mut grid = Grid {
        stands,
        plan,
        starting,
        seconds,
        display: Display::new(open),
        at_work: BTreeMap::new(),
        last_lines: BTreeMap::new(),
        failures: failed,
    };
    let (sender, receiver) = channel();
    let mut passed_on = 0;
    loop {
        let stopping = grid.starting.stop.asked() > 0;
        if !stopping {
            grid.start_what_is_ready(&sender);
        }
        if grid.at_work.is_empty() {
            break;
        }
        while passed_on < grid.starting.stop.asked() {
            passed_on += 1;
            if passed_on == 1 {
                grid.display
                    .say("stopping: each run writes a checkpoint (again: end them at once)");
            }
            for process in grid.at_work.values() {
                pass_on(&process.child);
            }
        }
        match receiver.recv_timeout(Duration::from_millis(100)) {
            Ok((job, message)) => grid.take(job, message, stopping)?,
            Err(RecvTimeoutError::Timeout) => grid.show_whole(),
            Err(RecvTimeoutError::Disconnected) => unreachable!("this loop holds a sender"),
        }
    }
    grid.display.close();
    let stopped = grid.starting.stop.asked() > 0;
    let failures = grid.failures.iter();
    let failures = failures
        .map(|(&job, why)| format!("{}: {why}", grid.plan.jobs[job].run.config.run_id()))
        .collect();
    Ok(Outcome { failures, stopped })
}

struct Grid<'a> {
    plan: &'a mut Plan,
    starting: &'a Starting<'a>,
    seconds: &'a [Option<f64>],
    display: Display,
    stands: Vec<Stand>,
    at_work: BTreeMap<usize, Process>,
    /// The last thing that a run said that was no event: why it failed.
    last_lines: BTreeMap<usize, String>,
    failures: BTreeMap<usize, String>,
}

impl Grid<'_> {
    fn count(&self, stand: Stand) -> usize {
        self.stands.iter().filter(|&&found| found == stand).count()
    }

    fn start_what_is_ready(&mut self, messages: &Sender<(usize, Message)>) {
        for job in 0..self.stands.len() {
            if self.at_work.len() >= self.starting.jobs {
                break;
            }
            if self.stands[job] != Stand::Open {
                continue;
            }
            let waits_for = self.plan.jobs[job].waits_for.clone();
            if let Some(trial) = waits_for.iter().find(|&&it| self.stands[it] == Stand::Failed) {
                let trial = self.plan.jobs[*trial].run.config.run_id();
                self.fail(job, format!("not started, for its trial {trial} failed"));
                continue;
            }
            if waits_for.iter().all(|&it| self.stands[it] == Stand::Done) {
                self.start(job, messages);
            }
        }
    }

    fn start(&mut self, job: usize, messages: &Sender<(usize, Message)>) {
        let Starting { workspace, options, nsmc, threads, .. } = self.starting;
        let chosen = self.plan.choices.len();
        let settled = self.plan.settled(workspace, options, self.plan.jobs[job].clone());
        for choice in self.plan.choices.iter().skip(chosen) {
            self.display.say(choice);
        }
        match settled {
            Ok(settled) => self.plan.jobs[job] = settled,
            Err(error) => {
                self.fail(job, format!("{error:#}"));
                return;
            }
        }
        let run = &self.plan.jobs[job].run;
        match Process::start(workspace, nsmc, run, *threads, job, messages) {
            Ok(Some(process)) => {
                let number = self.display.total() - self.count(Stand::Open) + 1;
                self.display.start(job, &run.config, number);
                self.at_work.insert(job, process);
                self.stands[job] = Stand::AtWork;
            }
            // Its trials were done anew and chose what they had chosen before, or another xtask has
            // run it since the plan was made.
            Ok(None) => self.stands[job] = Stand::Done,
            Err(error) => self.fail(job, format!("{error:#}")),
        }
        self.show_whole();
    }

    fn take(&mut self, job: usize, message: Message, stopping: bool) -> Result<()> {
        match message {
            Message::Event(event) => self.display.event(job, event),
            Message::Line(line) => {
                // An error may have lines; it is told when the run has ended.
                let said = self.last_lines.entry(job).or_default();
                if said.starts_with(ERROR) {
                    *said += &format!("\n{line}");
                } else {
                    if !line.starts_with(ERROR) {
                        self.display.line(job, &line);
                    }
                    *said = line;
                }
            }
            Message::Closed => {
                let Some(process) = self.at_work.remove(&job) else { return Ok(()) };
                let status = process.end()?;
                if status.success() && self.plan.jobs[job].run.is_done() {
                    self.stands[job] = Stand::Done;
                    self.display.end(job, "done");
                } else if stopping {
                    self.stands[job] = Stand::Open;
                    self.display.end(job, "stopped");
                } else {
                    let said = self.last_lines.remove(&job);
                    let why = said.unwrap_or_else(|| format!("the run ended with {status}"));
                    let why = why.strip_prefix(ERROR).unwrap_or(&why).to_owned();
                    self.display.end(job, &format!("failed ({why})"));
                    self.fail(job, why);
                }
                self.show_whole();
            }
        }
        Ok(())
    }

    fn fail(&mut self, job: usize, why: String) {
        self.stands[job] = Stand::Failed;
        self.failures.insert(job, why);
    }

    fn show_whole(&self) {
        let open = (0..self.stands.len())
            .filter(|&job| matches!(self.stands[job], Stand::Open | Stand::AtWork));
        let left = open.map(|job| Some(self.seconds[job]? * (1.0 - self.display.share(job))));
        let left: Option<f64> = left.sum();
        let done = self.display.total() - self.count(Stand::Open) - self.at_work.len();
        self.display.whole(done, left.map(|left| left / self.starting.jobs as f64));
    }
}
