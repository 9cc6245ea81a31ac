use std::fmt;
use std::io::Write;
use std::time::{Duration, Instant};

use burn::train::Interrupter;
use burn::train::logger::{EvaluationProgressLogger, TrainingProgressLogger};
use burn::train::metric::{MetricDefinition, MetricId, NumericEntry};
use burn::train::renderer::tui::TuiMetricsRendererWrapper;
use burn::train::renderer::{
    EvaluationName, MetricState, MetricsRenderer, MetricsRendererEvaluation,
    MetricsRendererTraining,
};
use indicatif::{ProgressBar, ProgressState, ProgressStyle};
use nsmc_eval::duration;
use nsmc_experiment::ProgressEvent;

/// A bar cannot be read faster.
const BETWEEN_EVENTS: Duration = Duration::from_millis(200);

/// What a person sees of a training, on stderr.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dashboard {
    /// burn-train's terminal dashboard.
    Tui,
    /// A progress bar with rate and time left.
    Bar,
    /// A line now and then, for a log.
    Lines,
    /// A JSON object a line ([`ProgressEvent`]), for the program that started this one.
    Json,
    /// Nothing.
    Silent,
}

impl Dashboard {
    /// Shows a line that stays on the screen.
    pub fn say(self, line: &str) {
        match self {
            Self::Bar | Self::Lines => write_line(line),
            Self::Json => send(&ProgressEvent::Said { text: line.into() }),
            Self::Tui | Self::Silent => {}
        }
    }

    /// Shows that `stage` of AdapterFusion's two trainings begins, from 1, and `what` it trains.
    pub fn stage(self, stage: usize, what: &str) {
        match self {
            Self::Json => send(&ProgressEvent::Stage { stage, stages: 2 }),
            _ => self.say(&format!("stage {stage} of 2: {what}")),
        }
    }

    pub(crate) fn renderer(self, interrupter: Interrupter) -> Box<dyn MetricsRenderer> {
        match self {
            Self::Tui => Box::new(TuiMetricsRendererWrapper::new(interrupter, None)),
            _ => Box::new(TrainingProgress::new(self)),
        }
    }
}

/// A closed stderr is no reason to stop training.
fn write_line(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn send(event: &ProgressEvent) {
    write_line(&serde_json::to_string(event).expect("an event is representable in JSON"));
}

/// Progress through a known number of reviews: a bar, lines or nothing.
pub struct Progress {
    label: String,
    total: usize,
    /// Whether nothing has been done yet that is shown.
    fresh: bool,
    shown: Shown,
}

enum Shown {
    Bar(ProgressBar),
    Json { sent: Option<Instant> },
    Lines { pace: Pace, tenths: usize },
    Nothing,
}

/// How fast reviews are done. What was done before a training went on tells nothing of it.
struct Pace {
    started: Instant,
    first: usize,
}

impl Pace {
    fn from(first: usize) -> Self {
        Self { started: Instant::now(), first }
    }

    /// Reviews per second, and the seconds that are left, `elapsed` after the start.
    fn at(&self, done: usize, total: usize, elapsed: Duration) -> (f64, f64) {
        let rate = done.saturating_sub(self.first) as f64 / elapsed.as_secs_f64().max(1e-9);
        (rate, total.saturating_sub(done) as f64 / rate.max(1e-9))
    }
}

impl Progress {
    /// Starts a display at 0 of `total` reviews, in the way that `dashboard` says.
    pub fn start(dashboard: Dashboard, label: &str, total: usize) -> Self {
        let shown = match dashboard {
            Dashboard::Bar => {
                let bar = ProgressBar::new(total as u64).with_prefix(label.to_owned());
                let template = "{prefix:<16} {bar:30} {human_pos}/{human_len} reviews  \
                                {rate}  ETA {left}  {msg}";
                let style = ProgressStyle::with_template(template).expect("the template is valid");
                // `per_sec` has four decimals, and `eta` a form of its own.
                let style = style
                    .with_key("rate", |state: &ProgressState, out: &mut dyn fmt::Write| {
                        let _ = write!(out, "{:.0}/s", state.per_sec());
                    })
                    .with_key("left", |state: &ProgressState, out: &mut dyn fmt::Write| {
                        let _ = write!(out, "{}", duration(state.eta().as_secs_f64()));
                    });
                Shown::Bar(bar.with_style(style))
            }
            Dashboard::Lines => Shown::Lines { pace: Pace::from(0), tenths: 0 },
            Dashboard::Json => Shown::Json { sent: None },
            Dashboard::Tui | Dashboard::Silent => Shown::Nothing,
        };
        Self { label: label.into(), total, fresh: true, shown }
    }

    /// Shows that `done` reviews are done, and their mean loss, if it is known.
    pub fn update(&mut self, done: usize, loss: Option<f64>) {
        let (label, total) = (&self.label, self.total);
        let message = loss.map(|loss| format!("loss {loss:.4}")).unwrap_or_default();
        let goes_on = std::mem::take(&mut self.fresh) && done < total;
        match &mut self.shown {
            Shown::Json { sent } => {
                let due = sent.is_none_or(|sent| sent.elapsed() >= BETWEEN_EVENTS);
                if due || done == total {
                    *sent = Some(Instant::now());
                    send(&ProgressEvent::Progress { label: label.clone(), done, total, loss });
                }
            }
            Shown::Bar(bar) => {
                bar.set_position(done as u64);
                bar.set_message(message);
                if goes_on {
                    bar.reset_eta();
                }
            }
            Shown::Lines { pace, tenths } => {
                let reached = (done * 10).checked_div(total).unwrap_or(10);
                if goes_on {
                    (*pace, *tenths) = (Pace::from(done), reached);
                } else if reached > *tenths {
                    *tenths = reached;
                    let (rate, left) = pace.at(done, total, pace.started.elapsed());
                    let left = duration(left);
                    write_line(&format!(
                        "{label}: {done}/{total} reviews, {rate:.0}/s, {left} left  {message}"
                    ));
                }
            }
            Shown::Nothing => {}
        }
    }

    /// Ends the display and leaves on the screen what it shows.
    pub fn finish(&mut self) {
        if let Shown::Bar(bar) = &self.shown {
            bar.abandon();
        }
    }
}

/// burn-train's events as [`Progress`].
struct TrainingProgress {
    dashboard: Dashboard,
    epochs: usize,
    epoch: usize,
    split: Option<Progress>,
    loss_id: Option<MetricId>,
    loss: MeanLoss,
}

/// The mean loss over the reviews of a split so far.
#[derive(Default)]
struct MeanLoss {
    sum: f64,
    reviews: usize,
}

impl MeanLoss {
    fn add(&mut self, value: &NumericEntry) {
        // A final entry repeats the whole epoch.
        if let NumericEntry::Aggregated { aggregated_value, count } = value {
            self.sum += aggregated_value * *count as f64;
            self.reviews += count;
        }
    }

    fn mean(&self) -> Option<f64> {
        (self.reviews > 0).then(|| self.sum / self.reviews as f64)
    }
}

impl TrainingProgress {
    fn new(dashboard: Dashboard) -> Self {
        Self {
            dashboard,
            epochs: 0,
            epoch: 1,
            split: None,
            loss_id: None,
            loss: MeanLoss::default(),
        }
    }

    fn update(&mut self, state: &MetricState) {
        if let MetricState::Numeric(entry, Some(value)) = state
            && Some(&entry.metric_id) == self.loss_id.as_ref()
        {
            self.loss.add(value);
        }
    }
}

impl MetricsRendererTraining for TrainingProgress {
    fn update_train(&mut self, state: MetricState) {
        self.update(&state);
    }

    fn update_valid(&mut self, state: MetricState) {
        self.update(&state);
    }
}

impl TrainingProgressLogger for TrainingProgress {
    fn start(&mut self, epochs: usize, first: usize, _: Option<usize>, _: Option<&str>) {
        (self.epochs, self.epoch) = (epochs, first);
    }

    fn update_epoch(&mut self, epoch: usize) {
        self.epoch = epoch + 1;
    }

    fn start_split(&mut self, split: &str, total: usize) {
        let what = if split.starts_with("train") { "epoch" } else { "validation" };
        let label = format!("{what} {}/{}", self.epoch, self.epochs);
        self.split = Some(Progress::start(self.dashboard, &label, total));
        self.loss = MeanLoss::default();
    }

    fn update_split(&mut self, done: usize) {
        if let Some(split) = &mut self.split {
            split.update(done, self.loss.mean());
        }
    }

    fn end_split(&mut self) {
        if let Some(mut split) = self.split.take() {
            split.finish();
        }
    }

    fn end(&mut self) {
        self.end_split();
    }

    fn log_event_training(&mut self, _: String) {}
}

impl MetricsRenderer for TrainingProgress {
    fn manual_close(&mut self) {}

    fn register_metric(&mut self, definition: MetricDefinition) {
        if definition.name.as_str() == "Loss" {
            self.loss_id = Some(definition.metric_id);
        }
    }
}

// burn-train's evaluator is not used: its F1 is a mean over batches.
impl MetricsRendererEvaluation for TrainingProgress {
    fn update_test(&mut self, _: EvaluationName, _: MetricState) {}
}

impl EvaluationProgressLogger for TrainingProgress {
    fn start_global_progress(&mut self, _: usize) {}
    fn start_test(&mut self, _: &str, _: usize) {}
    fn update_test_progress(&mut self, _: usize) {}
    fn end_test(&mut self) {}
    fn end_global_progress(&mut self) {}
    fn log_event_evaluation(&mut self, _: String) {}
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "the numbers are exact in binary")]
mod tests {
    use super::*;

    #[test]
    fn what_was_done_before_a_training_went_on_is_not_its_pace() {
        let mut lines = Progress::start(Dashboard::Lines, "epoch 2/3", 1_000);
        lines.update(600, None);
        lines.update(640, None);
        let Shown::Lines { pace, tenths } = &lines.shown else { panic!("lines were asked for") };
        assert_eq!((pace.first, *tenths), (600, 6));
        assert_eq!(pace.at(800, 1_000, Duration::from_secs(4)), (50.0, 4.0));
        assert_eq!(pace.at(600, 1_000, Duration::ZERO).0, 0.0);
    }

    #[test]
    fn a_bar_begins_to_count_where_a_training_goes_on() {
        let mut shown = Progress::start(Dashboard::Bar, "epoch 2/3", 1_000_000);
        shown.update(999_000, None);
        let Shown::Bar(bar) = &shown.shown else { panic!("a bar was asked for") };
        assert_eq!(bar.position(), 999_000);
        assert!(bar.per_sec() < 1_000.0, "{}", bar.per_sec());
    }
}
