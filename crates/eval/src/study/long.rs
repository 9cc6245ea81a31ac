use super::{Calibration, Cell, Metric, Study};
use crate::statistics::Interval;

/// The columns of [`Study::csv`].
const HEADER: [&str; 12] = [
    "profile",
    "setting",
    "recipe",
    "train_size",
    "method",
    "label",
    "compared_with",
    "seed",
    "status",
    "metric",
    "statistic",
    "value",
];

impl Study {
    /// Every figure in long format, one per line, for a program to read: those of runs (with their
    /// seed), of cells (over seeds), of contrasts (with what they are compared with), of the paper.
    pub fn csv(&self) -> String {
        let mut rows = Rows { writer: csv::Writer::from_writer(Vec::new()) };
        rows.record(HEADER.map(str::to_owned));
        for cell in &self.cells {
            self.runs_of(cell, &mut rows);
            self.summaries_of(cell, &mut rows);
        }
        for contrast in &self.contrasts {
            let Some(pair) = &contrast.pair else { continue };
            let (first, second) = (&self.cells[contrast.first], &self.cells[contrast.second]);
            let other = match (&first.key.recipe, &second.key.recipe) {
                (first, recipe) if first == recipe => second.key.label.clone(),
                (_, recipe) => format!("{}, {recipe}", second.key.label),
            };
            let bootstrap = pair.bootstrap;
            let mut figures = vec![
                ("difference", bootstrap.difference),
                ("standard_error", bootstrap.standard_error),
                ("low", bootstrap.interval.low),
                ("high", bootstrap.interval.high),
                ("only_first_right", pair.agreement.only_first as f64),
                ("only_second_right", pair.agreement.only_second as f64),
                ("mcnemar_p", pair.mcnemar.p()),
                ("holm_p", pair.holm_p),
            ];
            figures.extend(pair.seeds.map(|seeds| ("sign_flip_p", seeds.sign_flip_p)));
            for (statistic, value) in figures {
                let [metric, status] = ["accuracy", ""];
                rows.figure(self, first, [&other, "", status, metric, statistic], value);
            }
        }
        let bytes = rows.writer.into_inner().expect("memory takes what is written");
        String::from_utf8(bytes).expect("text was written")
    }

    fn runs_of(&self, cell: &Cell, rows: &mut Rows) {
        for run in &cell.runs {
            let seed = run.record.config.seed.to_string();
            let status = match (&run.report, run.is_at_chance()) {
                (None, _) => "failed",
                (Some(_), true) => "at_chance",
                (Some(_), false) => "success",
            };
            if run.report.is_none() {
                rows.text(self, cell, ["", &seed, status, "", "", ""]);
            }
            for metric in Metric::ALL {
                if let Some(value) = metric.of(run) {
                    rows.figure(self, cell, ["", &seed, status, metric.name(), "value"], value);
                }
            }
            if let Some(answers) = &run.answers {
                let error = Calibration::new([answers]).expected_error;
                let metric = "expected_calibration_error";
                rows.figure(self, cell, ["", &seed, status, metric, "value"], error);
            }
        }
        for seed in &cell.missing {
            rows.text(self, cell, ["", &seed.to_string(), "not_run", "", "", ""]);
        }
    }

    fn summaries_of(&self, cell: &Cell, rows: &mut Rows) {
        for metric in Metric::ALL {
            let Some(summary) = cell.summary(metric) else { continue };
            let mut figures = vec![("seeds", summary.seeds as f64), ("mean", summary.mean)];
            if let Some(spread) = summary.spread {
                figures.push(("standard_deviation", spread.standard_deviation));
            }
            let over_seeds = summary.spread.map(|spread| spread.interval);
            let interval = match metric {
                Metric::Accuracy => cell.accuracy_interval(),
                _ if metric.is_share() => over_seeds.map(Interval::of_a_share),
                _ => over_seeds,
            };
            if let Some(interval) = interval {
                figures.extend([("low", interval.low), ("high", interval.high)]);
            }
            for (statistic, value) in figures {
                rows.figure(self, cell, ["", "", "", metric.name(), statistic], value);
            }
        }
        if let Some(paper) = cell.paper(self.paper_scale) {
            for (metric, value) in [
                ("batch_mean_accuracy", paper.accuracy),
                ("batch_mean_precision", paper.precision),
                ("batch_mean_recall", paper.recall),
                ("batch_mean_f1", paper.f1),
                ("train_size", paper.train_size as f64),
            ] {
                rows.figure(self, cell, ["", "", "", metric, "paper"], value);
            }
        }
    }
}

struct Rows {
    writer: csv::Writer<Vec<u8>>,
}

impl Rows {
    /// `words`: compared with, seed, status, metric, statistic.
    fn figure(&mut self, study: &Study, cell: &Cell, words: [&str; 5], value: f64) {
        // Nine digits: more than any figure is known to, and the same on every machine. Of a p that
        // is smaller than they show, the order of magnitude.
        let value = if value != 0.0 && value.abs() < 1e-5 {
            format!("{value:.3e}")
        } else {
            let value = format!("{value:.9}");
            value.trim_end_matches('0').trim_end_matches('.').to_owned()
        };
        let [other, seed, status, metric, statistic] = words;
        self.text(study, cell, [other, seed, status, metric, statistic, &value]);
    }

    fn text(&mut self, study: &Study, cell: &Cell, words: [&str; 6]) {
        let key = &cell.key;
        let [other, seed, status, metric, statistic, value] = words.map(str::to_owned);
        self.record([
            study.name.clone(),
            key.setting.clone(),
            key.recipe.clone(),
            key.train_size.to_string(),
            key.method.name().into(),
            key.label.clone(),
            other,
            seed,
            status,
            metric,
            statistic,
            value,
        ]);
    }

    fn record(&mut self, fields: [String; HEADER.len()]) {
        self.writer.write_record(fields).expect("rows of one length fit into memory");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::study::fabricated;

    #[test]
    fn the_interval_of_a_share_lies_from_0_to_1() {
        let folder = tempfile::tempdir().unwrap();
        // A recall of 1 and one of about 0.7: two seeds that lie so far apart have a wide interval.
        for (seed, accuracy) in [(0, 0.5), (1, 0.7)] {
            let config = fabricated::config("paper", 1000, seed);
            fabricated::run(folder.path(), &config, accuracy, 1.0 + 5.0 * seed as f64);
        }
        let csv = Study::read_runs(folder.path(), None).unwrap().csv();
        let of_cell = |metric: Metric, statistic: &str| -> f64 {
            let end = format!(",,,{},{statistic},", metric.name());
            let line = csv.lines().find_map(|line| Some(line.split_once(&end)?.1));
            line.unwrap_or_else(|| panic!("{end}\nin no line of\n{csv}")).parse().unwrap()
        };
        let [low, high] = ["low", "high"].map(|end| of_cell(Metric::Recall, end));
        assert_eq!((low, high), (0.0, 1.0));
        for metric in Metric::ALL.into_iter().filter(|metric| metric.is_share()) {
            let [low, high] = ["low", "high"].map(|end| of_cell(metric, end));
            assert!(0.0 <= low && low <= high && high <= 1.0, "{metric:?}: {low} to {high}");
        }
        assert!(of_cell(Metric::EpochSeconds, "high") > 1.0, "seconds are no share");
    }
}
