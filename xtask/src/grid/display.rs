use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use nsmc_eval::duration;
use nsmc_experiment::{ExperimentConfig, MethodConfig, ProgressEvent};

use crate::say;

/// What a person sees of a grid: on a terminal a line per run at work and one for the whole,
/// otherwise a line now and then.
pub(crate) struct Display {
    screen: Option<Screen>,
    at_work: BTreeMap<usize, AtWork>,
    total: usize,
}

struct Screen {
    bars: MultiProgress,
    whole: ProgressBar,
}

/// How far one run is.
struct AtWork {
    id: String,
    bar: Option<ProgressBar>,
    started: Instant,
    /// Epochs of each stage.
    epochs: Vec<usize>,
    stage: usize,
    /// Where the current label began, for its rate.
    label: String,
    label_started: Instant,
    label_from: usize,
    /// How much of the training was done when this process said so first, and when that was.
    first: Option<(f64, Instant)>,
    done: f64,
}

/// Parts of a bar.
const PARTS: u64 = 1000;

impl Display {
    pub(crate) fn new(total: usize) -> Self {
        let screen = std::io::stderr().is_terminal().then(|| {
            let bars = MultiProgress::new();
            let whole = bars.add(ProgressBar::new(total as u64));
            let style = ProgressStyle::with_template("{prefix} {bar:20} {msg}");
            whole.set_style(style.expect("the template is valid"));
            whole.set_prefix("all runs");
            // Its time goes on between the messages of runs.
            whole.enable_steady_tick(Duration::from_millis(500));
            Screen { bars, whole }
        });
        Self { screen, at_work: BTreeMap::new(), total }
    }

    /// Tells a person something that stays.
    pub(crate) fn say(&self, line: &str) {
        match &self.screen {
            Some(screen) => {
                // A closed terminal is no reason to stop.
                let _ = screen.bars.println(line);
            }
            None => say(line),
        }
    }

    pub(crate) fn start(&mut self, job: usize, config: &ExperimentConfig, number: usize) {
        let id = config.run_id();
        let epochs = match &config.method {
            MethodConfig::AdapterFusion(fusion) => {
                vec![fusion.adapter_training.num_train_epochs, config.training.num_train_epochs]
            }
            _ => vec![config.training.num_train_epochs],
        };
        let bar = self.screen.as_ref().map(|screen| {
            let bar = screen.bars.insert_before(&screen.whole, ProgressBar::new(PARTS));
            let style = ProgressStyle::with_template("{prefix} {bar:20} {wide_msg}");
            bar.set_style(style.expect("the template is valid"));
            bar.set_prefix(format!("{id:<34}"));
            bar.set_message("starting");
            bar
        });
        if bar.is_none() {
            say(&format!("{id}: started, run {number} of {}", self.total));
        }
        let now = Instant::now();
        let at_work = AtWork {
            id,
            bar,
            started: now,
            epochs,
            stage: 1,
            label: String::new(),
            label_started: now,
            label_from: 0,
            first: None,
            done: 0.0,
        };
        self.at_work.insert(job, at_work);
    }

    pub(crate) fn event(&mut self, job: usize, event: ProgressEvent) {
        let Some(run) = self.at_work.get_mut(&job) else { return };
        match event {
            ProgressEvent::Stage { stage, stages } => {
                run.stage = stage;
                if run.bar.is_none() {
                    say(&format!("{}: stage {stage} of {stages}", run.id));
                }
            }
            ProgressEvent::Progress { label, done, total, loss } => {
                let message = run.progress(&label, done, total, loss);
                if let Some(bar) = &run.bar {
                    bar.set_position((run.done * PARTS as f64) as u64);
                    bar.set_message(message);
                }
            }
            // A terminal has its bar; a log wants to know of each epoch.
            ProgressEvent::Said { text } if run.bar.is_none() => {
                say(&format!("{}: {text}", run.id));
            }
            ProgressEvent::Said { .. } => {}
        }
    }

    pub(crate) fn line(&self, job: usize, line: &str) {
        let id = self.at_work.get(&job).map(|run| run.id.as_str()).unwrap_or_default();
        self.say(&format!("{id}: {line}"));
    }

    /// A run ended; `how` says so in words.
    pub(crate) fn end(&mut self, job: usize, how: &str) {
        let Some(run) = self.at_work.remove(&job) else { return };
        if let Some(bar) = &run.bar {
            bar.finish_and_clear();
        }
        let took = duration(run.started.elapsed().as_secs_f64());
        self.say(&format!("{}: {how} after {took}", run.id));
    }

    /// How the whole stands: runs done, runs at work, seconds left if that is known.
    pub(crate) fn whole(&self, done: usize, left: Option<f64>) {
        let Some(screen) = &self.screen else { return };
        screen.whole.set_position(done as u64);
        let left = left.map(|left| format!(", about {} left", duration(left))).unwrap_or_default();
        let elapsed = duration(screen.whole.elapsed().as_secs_f64());
        screen.whole.set_message(format!("{done} of {} done, {elapsed}{left}", self.total));
    }

    /// The share of a run at work that is done; 0 before it says so.
    pub(crate) fn share(&self, job: usize) -> f64 {
        self.at_work.get(&job).map_or(0.0, |run| run.done)
    }

    pub(crate) fn total(&self) -> usize {
        self.total
    }

    pub(crate) fn close(&self) {
        if let Some(screen) = &self.screen {
            screen.whole.finish_and_clear();
        }
    }
}

impl AtWork {
    /// Takes note of how far the run is, and says it.
    fn progress(&mut self, label: &str, done: usize, total: usize, loss: Option<f64>) -> String {
        let now = Instant::now();
        if self.label != label {
            (self.label, self.label_started, self.label_from) = (label.into(), now, done);
        }
        if let Some((epoch, _)) = ProgressEvent::epoch(label) {
            let all: usize = self.epochs.iter().sum();
            let before: usize = self.epochs.iter().take(self.stage - 1).sum();
            let in_epoch = done as f64 / total.max(1) as f64;
            self.done = ((before + epoch - 1) as f64 + in_epoch) / all.max(1) as f64;
            self.first.get_or_insert((self.done, now));
        }
        let stage = match self.epochs.len() {
            1 => String::new(),
            stages => format!("stage {}/{stages}, ", self.stage),
        };
        let seconds = (now - self.label_started).as_secs_f64();
        let rate = (done - self.label_from.min(done)) as f64 / seconds;
        let rate = if seconds > 0.0 { format!("  {rate:.0} reviews/s") } else { String::new() };
        let loss = loss.map(|loss| format!("  loss {loss:.4}")).unwrap_or_default();
        let left = match self.first {
            Some((from, since)) if self.done > from => {
                let pace = (now - since).as_secs_f64() / (self.done - from);
                format!("  ETA {}", duration(pace * (1.0 - self.done)))
            }
            _ => String::new(),
        };
        format!("{stage}{label}{rate}{loss}{left}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_that_is_left_is_written_as_the_plan_writes_times() {
        let now = Instant::now();
        let Some(begun) = now.checked_sub(Duration::from_secs(100)) else { return };
        let mut run = AtWork {
            id: "vanilla-all-s1-c0ffee00".into(),
            bar: None,
            started: begun,
            epochs: vec![2, 2],
            stage: 2,
            label: "epoch 1/2".into(),
            label_started: begun,
            label_from: 0,
            first: Some((0.5, begun)),
            done: 0.5,
        };
        // A sixteenth of all in 100 seconds, and seven left.
        let said = run.progress("epoch 1/2", 100, 400, Some(0.25));
        assert_eq!(said, "stage 2/2, epoch 1/2  1 reviews/s  loss 0.2500  ETA 12 min");
        let said = run.progress("epoch 2/2", 200, 400, None);
        assert!(said.ends_with("  ETA 33 s"), "{said}");
    }
}
