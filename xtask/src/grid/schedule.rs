use std::collections::BTreeMap;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::args::Options;
use crate::grid::display::Display;
use crate::grid::plan::{Plan, State};
use crate::grid::process::{Message, Process};
use crate::grid::stop::{Stop, pass_on};
use crate::holder::{Attempt, Holder};
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
pub(crate) const ERROR: &str = "error: ";
/// How it says that another process was before it in its run directory: one that an xtask that was
/// killed had just started, and that took its lock only after this one had looked.
const HELD: &str = "is at work in this run directory";

/// How runs are started.
pub(crate) struct Starting<'a> {
    pub(crate) workspace: &'a Workspace,
    pub(crate) options: &'a Options,
    pub(crate) nsmc: &'a Nsmc,
    /// Runs at once, on each GPU.
    pub(crate) jobs: usize,
    /// The GPUs that the runs are spread over; none leaves it to the program.
    ///
    /// The unit is a whole run, a cell of the grid with a seed: a batch of 32 short reviews is little
    /// work to divide, and the runs of a grid need nothing of each other, but for trials. A run's GPU
    /// is no part of its identity.
    pub(crate) gpus: &'a [u16],
    /// Threads of each; none leaves it to the program.
    pub(crate) threads: Option<usize>,
    pub(crate) stop: Stop,
    /// How long another process that is at work on a run is waited for when nothing else is to do.
    pub(crate) patience: Duration,
}

impl Starting<'_> {
    /// Runs at once, on all GPUs.
    fn at_once(&self) -> usize {
        self.jobs * self.gpus.len().max(1)
    }
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
) -> Outcome {
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
        held: BTreeMap::new(),
        last_lines: BTreeMap::new(),
        failures: failed,
    };
    let (sender, receiver) = channel();
    let mut passed_on = 0;
    loop {
        let stopping = grid.starting.stop.asked() > 0;
        if !stopping {
            grid.start_what_is_ready(&sender);
            while grid.give_up_waiting() {
                // What waits for those is told so.
                grid.start_what_is_ready(&sender);
            }
        }
        if grid.at_work.is_empty() && (stopping || grid.held.is_empty()) {
            break;
        }
        while passed_on < grid.starting.stop.asked() {
            passed_on += 1;
            if passed_on == 1 {
                grid.display
                    .say("stopping: each run writes a checkpoint (again: end them at once)");
            }
            for process in grid.at_work.values() {
                pass_on(&process.tied.child);
            }
        }
        match receiver.recv_timeout(Duration::from_millis(100)) {
            Ok((job, message)) => grid.take(job, message),
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
    Outcome { failures, stopped }
}

/// What a run can be at work on.
struct Place {
    /// The GPU; none leaves it to the program.
    gpu: Option<u16>,
}

struct Grid<'a> {
    plan: &'a mut Plan,
    starting: &'a Starting<'a>,
    seconds: &'a [Option<f64>],
    display: Display,
    stands: Vec<Stand>,
    at_work: BTreeMap<usize, Process>,
    /// Those that another process is at work on, since when that is known.
    held: BTreeMap<usize, (Holder, Instant)>,
    /// The last thing that a run said that was no event: why it failed.
    last_lines: BTreeMap<usize, String>,
    failures: BTreeMap<usize, String>,
}

impl Grid<'_> {
    fn count(&self, stand: Stand) -> usize {
        self.stands.iter().filter(|&&found| found == stand).count()
    }

    /// Where one more run can be at work: on the GPU with the fewest. None if all are full.
    fn place(&self) -> Option<Place> {
        let Starting { jobs, gpus, .. } = self.starting;
        let at_work = |place: &Place| {
            self.at_work.values().filter(|process| process.gpu == place.gpu).count()
        };
        let named = gpus.iter().map(|&gpu| Place { gpu: Some(gpu) });
        let unnamed = gpus.is_empty().then_some(Place { gpu: None });
        named.chain(unnamed).min_by_key(at_work).filter(|place| at_work(place) < *jobs)
    }

    fn start_what_is_ready(&mut self, messages: &Sender<(usize, Message)>) {
        for job in 0..self.stands.len() {
            let Some(Place { gpu }) = self.place() else { break };
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
                self.start(job, gpu, messages);
            }
        }
    }

    /// Fails the runs that another process is at work on for too long. While there is anything else
    /// to do, waiting for it costs nothing.
    fn give_up_waiting(&mut self) -> bool {
        let patience = self.starting.patience;
        let late = |(_, since): &(Holder, Instant)| since.elapsed() >= patience;
        if !self.at_work.is_empty() {
            self.held.values_mut().for_each(|(_, since)| *since = Instant::now());
            return false;
        }
        if !self.held.values().any(late) {
            return false;
        }
        let (late, held) = std::mem::take(&mut self.held).into_iter().partition(|(_, it)| late(it));
        self.held = held;
        let late: BTreeMap<usize, (Holder, Instant)> = late;
        for (job, (holder, _)) in late {
            self.fail(job, holder.in_the_way());
        }
        true
    }

    fn start(&mut self, job: usize, gpu: Option<u16>, messages: &Sender<(usize, Message)>) {
        let Starting { workspace, nsmc, threads, .. } = self.starting;
        let chosen = self.plan.choices.len();
        let settled = self.plan.settled(self.plan.jobs[job].clone());
        for choice in self.plan.choices.iter().skip(chosen) {
            self.display.say(choice);
        }
        match settled {
            // Records that were there a moment ago.
            Ok(settled) if !settled.waits_for.is_empty() => {
                self.fail(job, "not started: its trials' records cannot be read any more".into());
                return;
            }
            Ok(settled) => self.plan.jobs[job] = settled,
            Err(error) => {
                self.fail(job, format!("{error:#}"));
                return;
            }
        }
        let run = &self.plan.jobs[job].run;
        match Process::start(workspace, nsmc, run, gpu, *threads, job, messages) {
            Ok(Attempt::Made(Some(process))) => {
                let number = self.display.total() - self.count(Stand::Open) + 1;
                self.display.start(job, &run.config, number);
                self.at_work.insert(job, process);
                self.stands[job] = Stand::AtWork;
            }
            // Its trials were done anew and chose what they had chosen before, or another xtask has
            // run it since the plan was made.
            Ok(Attempt::Made(None)) => {
                self.held.remove(&job);
                self.stands[job] = Stand::Done;
            }
            Ok(Attempt::Held(holder)) => {
                let id = run.config.run_id();
                self.hold(job, &id, holder);
            }
            Err(error) => self.fail(job, format!("{error:#}")),
        }
        self.show_whole();
    }

    fn take(&mut self, job: usize, message: Message) {
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
                let Some(process) = self.at_work.remove(&job) else { return };
                // What cannot be read or removed of one run is no reason to end the others.
                if let Err(error) = self.ended(job, process) {
                    self.fail_at_work(job, format!("{error:#}"));
                }
                self.show_whole();
            }
        }
    }

    /// Takes note of how a run at work ended.
    fn ended(&mut self, job: usize, process: Process) -> Result<()> {
        let status = process.end()?;
        if status.success() && self.plan.jobs[job].run.is_done() {
            self.held.remove(&job);
            self.stands[job] = Stand::Done;
            self.display.end(job, "done");
            return Ok(());
        }
        // Asked only now: it may have ended by a signal that came since it was last seen at work.
        if self.starting.stop.asked() > 0 {
            self.stands[job] = Stand::Open;
            self.display.end(job, "stopped");
            return Ok(());
        }
        let said = self.last_lines.remove(&job);
        let why = why_it_ended(said.as_deref(), &status.to_string());
        let run = &self.plan.jobs[job].run;
        let late =
            self.held.get(&job).is_some_and(|(_, since)| since.elapsed() >= self.starting.patience);
        if why.contains(HELD) && !late {
            let holder = Holder::of(&run.folder)?.unwrap_or_default();
            let id = run.config.run_id();
            self.stands[job] = Stand::Open;
            self.display.end(job, "not started");
            self.hold(job, &id, holder);
        } else {
            self.fail_at_work(job, why);
        }
        Ok(())
    }

    /// Keeps a run open that another process is at work on, and says so, once of each.
    fn hold(&mut self, job: usize, id: &str, holder: Holder) {
        let earlier = self.held.get(&job);
        if earlier.is_none_or(|(known, _)| *known != holder) {
            self.display.say(&format!("{id}: {}", holder.waiting()));
        }
        let since = earlier.map_or_else(Instant::now, |(_, since)| *since);
        self.held.insert(job, (holder, since));
    }

    fn fail_at_work(&mut self, job: usize, why: String) {
        self.display.end(job, &format!("failed ({why})"));
        self.fail(job, why);
    }

    fn fail(&mut self, job: usize, why: String) {
        self.held.remove(&job);
        self.stands[job] = Stand::Failed;
        self.failures.insert(job, why);
    }

    fn show_whole(&self) {
        let open = (0..self.stands.len())
            .filter(|&job| matches!(self.stands[job], Stand::Open | Stand::AtWork));
        let left = open.map(|job| Some(self.seconds[job]? * (1.0 - self.display.share(job))));
        let left: Option<f64> = left.sum();
        let done = self.display.total() - self.count(Stand::Open) - self.at_work.len();
        self.display.whole(done, left.map(|left| left / self.starting.at_once() as f64));
    }
}

/// Why a run failed: the error that it ended with, or if it came to none, as when it is killed for want
/// of memory, how it ended, and what it had said last.
pub(super) fn why_it_ended(said: Option<&str>, status: &str) -> String {
    match said.map(|said| (said.strip_prefix(ERROR), said)) {
        Some((Some(error), _)) => error.to_owned(),
        Some((None, said)) => format!("the run ended with {status}; its last words: {said}"),
        None => format!("the run ended with {status}"),
    }
}
