use burn::lr_scheduler::{LrScheduler, LrSchedulerRecord};

/// transformers' `get_linear_schedule_with_warmup`.
///
/// Of `T` steps the first `W` warm up: step `s` (from 0) has the learning rate `peak · s / W` below
/// `W`, then `peak · (T - s) / (T - W)`. Without warm-up the first step has the peak; the last step
/// has `peak / T`.
///
/// Deviation: burn's linear scheduler cannot start at 0.
#[derive(Clone, Copy, Debug)]
pub struct LinearSchedule {
    peak: f64,
    warmup_steps: usize,
    total_steps: usize,
    step: usize,
}

impl LinearSchedule {
    /// A schedule of `total_steps` steps, the first `warmup_ratio` of them (rounded up, as in
    /// transformers) warming up.
    pub fn new(peak: f64, warmup_ratio: f64, total_steps: usize) -> Self {
        let warmup_steps = (total_steps as f64 * warmup_ratio).ceil() as usize;
        Self { peak, warmup_steps, total_steps, step: 0 }
    }

    /// The learning rate of step `step`, from 0.
    pub fn at(&self, step: usize) -> f64 {
        if step < self.warmup_steps {
            return self.peak * step as f64 / self.warmup_steps.max(1) as f64;
        }
        let left = self.total_steps.saturating_sub(step) as f64;
        self.peak * left / self.total_steps.saturating_sub(self.warmup_steps).max(1) as f64
    }
}

impl LrScheduler for LinearSchedule {
    fn step(&mut self) -> f64 {
        let rate = self.at(self.step);
        self.step += 1;
        rate
    }

    fn to_record(&self) -> LrSchedulerRecord {
        LrSchedulerRecord::new().with_scalar("step", self.step)
    }

    fn load_record(&mut self, record: LrSchedulerRecord) {
        self.step = record.scalar("step").expect("the record of a linear schedule has its step");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `[scheduler.get_last_lr()[0] ...]` of transformers 4.57.6.
    #[test]
    fn rates_are_those_of_transformers() {
        for (peak, warmup_ratio, expected) in [
            (1e-3, 0.0, vec![1e-3, 8e-4, 6e-4, 4e-4, 2e-4]),
            (2e-5, 0.25, vec![0.0, 1e-5, 2e-5, 1.6e-5, 1.2e-5, 8e-6, 4e-6]),
            (1.0, 1.0, vec![0.0, 1.0 / 3.0, 2.0 / 3.0]),
        ] {
            let mut schedule = LinearSchedule::new(peak, warmup_ratio, expected.len());
            for expected in expected {
                let rate = schedule.step();
                assert!((rate - expected).abs() < 1e-12, "{rate}, expected {expected}");
            }
        }
    }

    #[test]
    fn a_loaded_schedule_goes_on_where_it_was() {
        let mut schedule = LinearSchedule::new(1e-3, 0.1, 50);
        for _ in 0..17 {
            schedule.step();
        }
        let mut loaded = LinearSchedule::new(1e-3, 0.1, 50);
        loaded.load_record(schedule.to_record());
        assert_eq!(loaded.step().to_bits(), schedule.step().to_bits());
    }
}
