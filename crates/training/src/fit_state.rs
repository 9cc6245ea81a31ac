use std::time::Instant;

use nsmc_experiment::EpochRecord;
use serde::{Deserialize, Serialize};

use crate::saved_models::SavedModels;

/// Where a training stands after a step: a checkpoint's state.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct FitState {
    /// The epochs that are done.
    pub(crate) epochs: Vec<EpochRecord>,
    pub(crate) best_epoch: Option<usize>,
    // Flat, as it was before it had a type of its own: older checkpoints are gone on from.
    #[serde(flatten)]
    pub(crate) progress: EpochProgress,
    /// What is in `checkpoint/`.
    pub(crate) kept: SavedModels,
}

impl FitState {
    /// Adds a finished epoch, with the next at its start; whether it is the best so far.
    pub(crate) fn finish_epoch(&mut self, record: EpochRecord) -> bool {
        let best = self.epochs.iter().filter_map(|epoch| epoch.validation_accuracy);
        let best = best.fold(f64::NEG_INFINITY, f64::max);
        let is_best = record.validation_accuracy.is_some_and(|accuracy| accuracy > best);
        if is_best {
            self.best_epoch = Some(record.epoch);
        }
        self.epochs.push(record);
        self.progress = EpochProgress::default();
        is_best
    }
}

/// What is done of the epoch at hand.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct EpochProgress {
    /// Steps done.
    pub(crate) index: usize,
    /// Sum of the losses of their reviews.
    pub(crate) loss_sum: f64,
    #[serde(flatten)]
    pub(crate) clock: StepClock,
}

/// A stopwatch for an epoch's steps.
///
/// The first step of a process compiles and tunes kernels: its time is kept apart from that of the
/// others. A device works behind its caller's back, so that whoever reads the clock waits for it first.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct StepClock {
    /// Time of the steps that are timed.
    timed_seconds: f64,
    timed_steps: usize,
    /// Time of the others, each the first of a process; of those of older checkpoints, 0.
    #[serde(default)]
    untimed_seconds: f64,
    /// None while it stands still.
    #[serde(skip)]
    running_since: Option<Instant>,
}

impl StepClock {
    pub(crate) fn start(&mut self) {
        self.running_since = Some(Instant::now());
    }

    /// The time since the start was that of a process's first step; starts again.
    pub(crate) fn first_step(&mut self) {
        self.untimed_seconds += self.lap();
        self.start();
    }

    /// A step is done that is not the first of its process.
    pub(crate) fn step(&mut self) {
        self.timed_steps += 1;
    }

    /// Stands still until the next start: while a checkpoint is made, or at the end of an epoch.
    pub(crate) fn stop(&mut self) {
        self.timed_seconds += self.lap();
    }

    /// The time of an epoch's steps, as if each had taken as long as those that are timed; what they
    /// took, if none is.
    pub(crate) fn seconds(&self, steps: usize) -> f64 {
        match self.timed_steps {
            0 => self.untimed_seconds,
            timed => self.timed_seconds / timed as f64 * steps as f64,
        }
    }

    fn lap(&mut self) -> f64 {
        self.running_since.take().map_or(0.0, |since| since.elapsed().as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use std::thread::sleep;
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_epochs_time_is_that_of_its_timed_steps_and_of_all_where_none_is_timed() {
        let mut clock = StepClock {
            timed_seconds: 8.0,
            timed_steps: 2,
            untimed_seconds: 5.0,
            ..Default::default()
        };
        assert!((clock.seconds(3) - 12.0).abs() < 1e-9);
        (clock.timed_seconds, clock.timed_steps) = (1e-6, 0);
        assert!((clock.seconds(3) - 5.0).abs() < 1e-9);
    }

    #[test]
    fn the_clock_runs_from_start_to_stop_and_keeps_a_first_step_apart() {
        let pause = || sleep(Duration::from_millis(20));
        let mut clock = StepClock::default();
        clock.start();
        pause();
        clock.first_step();
        assert!(clock.untimed_seconds >= 0.02 && clock.timed_seconds == 0.0, "{clock:?}");
        let untimed = clock.untimed_seconds;
        pause();
        clock.step();
        clock.stop();
        let timed = clock.timed_seconds;
        assert!(timed >= 0.02, "{clock:?}");
        // Nothing is taken while it stands still.
        pause();
        clock.stop();
        assert_eq!((clock.timed_seconds, clock.timed_steps), (timed, 1));
        clock.start();
        clock.step();
        clock.stop();
        assert_eq!((clock.untimed_seconds, clock.timed_steps), (untimed, 2));
    }

    fn accuracy(epoch: usize, accuracy: Option<f64>) -> EpochRecord {
        EpochRecord {
            epoch,
            steps: 13,
            train_seconds: 0.1,
            tokens: 640,
            train_loss: 0.625,
            validation_loss: accuracy.map(|_| 0.5),
            validation_accuracy: accuracy,
        }
    }

    #[test]
    fn the_best_epoch_is_the_earliest_of_equals_and_the_next_begins_at_its_start() {
        let mut state = FitState::default();
        assert!(!state.finish_epoch(accuracy(1, None)));
        for (epoch, value, best) in [(2, 0.5, true), (3, 0.75, true), (4, 0.75, false)] {
            (state.progress.index, state.progress.loss_sum) = (13, 4.0);
            state.progress.clock.timed_steps = 13;
            assert_eq!(state.finish_epoch(accuracy(epoch, Some(value))), best, "{epoch}");
            let EpochProgress { index, loss_sum, clock } = &state.progress;
            assert_eq!((*index, *loss_sum, clock.timed_steps), (0, 0.0, 0));
        }
        assert_eq!((state.best_epoch, state.epochs.len()), (Some(3), 4));
    }

    /// A state within its second epoch.
    fn state() -> FitState {
        let mut state = FitState::default();
        state.finish_epoch(accuracy(1, Some(0.75)));
        state.kept = toml::from_str("last = \"a\"\nbest = \"b\"").unwrap();
        let clock = StepClock {
            timed_seconds: 1.5,
            timed_steps: 3,
            untimed_seconds: 0.25,
            running_since: Some(Instant::now()),
        };
        state.progress = EpochProgress { index: 4, loss_sum: std::f64::consts::E, clock };
        state
    }

    /// As it was written before there was an [`EpochProgress`] and a [`StepClock`].
    const WRITTEN: &str = r#"best_epoch = 1
index = 4
loss_sum = 2.718281828459045
timed_seconds = 1.5
timed_steps = 3
untimed_seconds = 0.25

[[epochs]]
epoch = 1
steps = 13
train_seconds = 0.1
tokens = 640
train_loss = 0.625
validation_loss = 0.5
validation_accuracy = 0.75

[kept]
last = "a"
best = "b"
"#;

    #[test]
    fn a_state_is_written_as_it_always_was_and_read_again() {
        let text = toml::to_string(&state()).unwrap();
        assert_eq!(text, WRITTEN);
        let read: FitState = toml::from_str(WRITTEN).unwrap();
        assert_eq!(read.progress.loss_sum.to_bits(), std::f64::consts::E.to_bits());
        assert_eq!((read.progress.index, read.best_epoch), (4, Some(1)));
        assert_eq!(read.epochs, state().epochs);
        assert_eq!(read.kept, state().kept);
        assert_eq!(toml::to_string(&read).unwrap(), WRITTEN);
        // Before the end of an epoch there is none, and none that is best.
        let new = toml::to_string(&FitState::default()).unwrap();
        assert!(new.starts_with("epochs = []\nindex = 0\nloss_sum = 0.0\n"), "{new}");
        toml::from_str::<FitState>(&new).unwrap();
    }

    #[test]
    fn a_state_from_before_untimed_steps_had_a_time_is_read() {
        let older = WRITTEN.replace("untimed_seconds = 0.25\n", "");
        assert_ne!(older, WRITTEN);
        let read: FitState = toml::from_str(&older).unwrap();
        assert!(read.progress.index == 4 && (read.progress.clock.seconds(2) - 1.0).abs() < 1e-9);
        for key in ["index", "loss_sum", "timed_steps"] {
            let torn: Vec<&str> =
                WRITTEN.lines().filter(|line| !line.starts_with(&format!("{key} "))).collect();
            assert!(toml::from_str::<FitState>(&torn.join("\n")).is_err(), "{key}");
        }
    }
}
