//! Accuracy against time.

use nsmc_eval::Words;
use nsmc_eval::study::{Cell, Metric, Study, StudyRun};

use crate::figures::{Figure, accuracy, accuracy_point, accuracy_range, by_method, mean, panels};
use crate::look::Looks;
use crate::plot::{Plot, Point, Series};
use crate::words::words;

/// Which times the plots against time show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Times {
    /// Of all training steps, measured with nothing beside them.
    Alone,
    /// Of an epoch's training steps, measured so: where the record of a part, as of AdapterFusion's
    /// first stage, has no such time.
    EpochAlone,
    /// None: of whole runs that shared the machine, not all of which were measured again.
    Shared,
    /// Of whole runs, of which no more is known.
    Whole,
}

impl Times {
    /// The same for all plots.
    pub(crate) fn of(study: &Study) -> Self {
        let panels = panels(study);
        let cells = panels.iter().flat_map(|panel| &panel.cells);
        let runs: Vec<&StudyRun> = cells.flat_map(|cell| cell.finished()).collect();
        if runs.is_empty() {
            return Self::Whole;
        }
        // A run is measured again if it shared the machine.
        let again = runs.iter().filter(|run| epoch_seconds_alone(run).is_some()).count();
        if runs.iter().all(|run| minutes_alone(run).is_some()) {
            Self::Alone
        } else if again == runs.len() {
            Self::EpochAlone
        } else if again > 0 {
            Self::Shared
        } else {
            Self::Whole
        }
    }

    fn of_run(self, run: &StudyRun) -> Option<f64> {
        match self {
            Self::Alone => minutes_alone(run),
            Self::EpochAlone => epoch_seconds_alone(run),
            Self::Shared => None,
            Self::Whole => Some(Metric::TotalSeconds.of(run)? / 60.0),
        }
    }

    fn x_title(self) -> Words {
        match self {
            Self::Alone => {
                words("minutes of training, measured alone", "단독으로 잰 학습 시간(분)")
            }
            Self::EpochAlone => {
                words("seconds per epoch, measured alone", "단독으로 잰 에폭당 시간(초)")
            }
            Self::Shared | Self::Whole => words("minutes of the whole run", "실험 전체 시간(분)"),
        }
    }

    pub(crate) fn caption(self) -> Words {
        match self {
            Self::Alone => words(
                "Mean accuracy by the time of the training steps: the number of epochs times the seconds \
                 per epoch, which were measured again with nothing beside them. Each point is one training \
                 size. A baseline has no epochs and is left out.",
                "학습 스텝의 시간에 따른 평균 정확도입니다. 시간은 다른 작업 없이 다시 잰 에폭당 시간에 에폭 수를 곱한 값입니다. \
                 점마다 학습 데이터 크기가 다릅니다. 베이스라인은 에폭이 없어 뺐습니다.",
            ),
            Self::EpochAlone => words(
                "Mean accuracy by the seconds of an epoch's training steps, measured again with nothing \
                 beside them. AdapterFusion's are of its second stage. Each point is one training size. The \
                 runs had shared the machine, so that methods cannot be compared by the times of whole runs. \
                 A baseline has no epochs and is left out.",
                "한 에폭의 학습 스텝에 걸린 시간에 따른 평균 정확도입니다. 시간은 다른 작업 없이 다시 쟀고, AdapterFusion은 \
                 2단계의 시간입니다. 점마다 학습 데이터 크기가 다릅니다. 실험들이 컴퓨터를 나눠 썼으므로 실험 전체 시간으로는 \
                 방법끼리 비교할 수 없습니다. 베이스라인은 에폭이 없어 뺐습니다.",
            ),
            Self::Shared => words(
                "Nothing is plotted: the runs shared the machine, so that methods cannot be compared by \
                 their times, and not all of them were measured again alone.",
                "실험들이 컴퓨터를 나눠 써서 시간을 방법끼리 비교할 수 없고, 단독으로 다시 재지 않은 실험이 있어 그리지 \
                 않았습니다.",
            ),
            Self::Whole => words(
                "Mean accuracy by the wall time of the whole run: training, both stages of AdapterFusion, \
                 validation and test. Each point is one training size. If anything else ran on the machine \
                 at the same time, its effect is in these times.",
                "실험 전체 시간(학습, AdapterFusion의 두 단계, 검증, 테스트)에 따른 평균 정확도입니다. 점마다 학습 데이터 크기가 \
                 다릅니다. 같은 컴퓨터에서 함께 실행된 작업이 있다면 그 영향까지 들어간 시간입니다.",
            ),
        }
    }
}

fn epoch_seconds_alone(run: &StudyRun) -> Option<f64> {
    run.record.results.as_ref()?.epoch_seconds_alone
}

/// The time of a run's training steps with nothing beside it; none if a part of it was not measured
/// so, as AdapterFusion's first stage, of which the record has no such time.
fn minutes_alone(run: &StudyRun) -> Option<f64> {
    let results = run.record.results.as_ref()?;
    let seconds = results.epoch_seconds_alone.filter(|_| results.adapter_stage.is_none())?;
    Some(results.epochs.len() as f64 * seconds / 60.0)
}

/// Accuracy against time.
pub(crate) fn by_time(study: &Study, times: Times) -> Vec<Figure> {
    let plots = time_plots(study, times).into_iter();
    plots.map(|(name, plot)| plot.figure(name)).collect()
}

fn time_plots(study: &Study, times: Times) -> Vec<(String, Plot)> {
    let looks = Looks::of(study);
    let mut plots: Vec<(String, Plot)> = Vec::new();
    for panel in panels(study) {
        let series: Vec<Series> = by_method(&looks, &panel.plotted())
            .into_iter()
            .map(|(name, look, cells)| {
                let point = |cell: &&Cell| {
                    let of_runs = cell.finished().filter_map(|run| times.of_run(run));
                    let mean = mean(&of_runs.collect::<Vec<_>>());
                    // A record made elsewhere may have times whose sum is none.
                    accuracy_point(mean.filter(|time| time.is_finite())?, cell)
                };
                let mut points: Vec<Point> = cells.iter().filter_map(point).collect();
                points.sort_by(|a, b| a.x.total_cmp(&b.x));
                Series { name, look, points }
            })
            .filter(|series| !series.points.is_empty())
            .collect();
        let highest = series.iter().flat_map(|series| &series.points).map(|point| point.x);
        let Some(highest) = highest.reduce(f64::max) else { continue };
        let plot = Plot {
            title: panel.title,
            x_title: times.x_title(),
            y_title: accuracy(),
            x_marks: marks(highest),
            x: 0.0..highest * 1.08,
            y: accuracy_range(&series),
            series,
            diagonal: false,
        };
        plots.push((format!("time-{}", panel.name), plot));
    }
    plots
}

/// Round numbers from 0 to `highest`, three to seven of them.
fn marks(highest: f64) -> Vec<(f64, String)> {
    let magnitude = 10_f64.powf((highest / 4.0).log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * magnitude);
    let step = step.into_iter().find(|step| highest / step <= 6.0).unwrap_or(magnitude);
    // As many as tell two marks apart; a step of 0.1 may be less by a rounding.
    let digits = (-(step.log10() + 1e-9).floor()).clamp(0.0, 9.0) as usize;
    let count = (highest / step).floor() as usize;
    (0..=count).map(|index| index as f64 * step).map(|at| (at, format!("{at:.digits$}"))).collect()
}

#[cfg(test)]
mod tests {
    use nsmc_experiment::{ExperimentConfig, MethodKind, RunRecord};

    use super::*;
    use crate::fabricated;
    use crate::figures::sections;

    /// A study of a cell per configuration; `change` is made to each record.
    fn study(runs: &[(ExperimentConfig, f64)], change: impl Fn(&mut RunRecord)) -> Study {
        let folder = tempfile::tempdir().unwrap();
        for (config, accuracy) in runs {
            fabricated::run(folder.path(), config, *accuracy, 90.0);
            let path = folder.path().join(config.run_id()).join("record.json");
            let mut record = RunRecord::read(&path).unwrap();
            change(&mut record);
            record.write(&path).unwrap();
        }
        Study::read_runs(folder.path(), None).unwrap()
    }

    /// Where the points of each series lie, from left to right.
    fn at(plot: &Plot) -> Vec<(String, Vec<f64>)> {
        let points = |series: &Series| series.points.iter().map(|point| point.x).collect();
        plot.series.iter().map(|series| (series.name.en.clone(), points(series))).collect()
    }

    #[test]
    fn the_labels_of_an_axis_of_times_say_where_they_stand() {
        for exponent in -6..6 {
            for factor in [1.0, 1.3, 2.4, 3.0, 4.1, 5.9, 7.2, 9.9] {
                let highest = factor * 10_f64.powi(exponent);
                let marks = marks(highest);
                assert!((3..=7).contains(&marks.len()), "{highest}: {marks:?}");
                for (index, (at, label)) in marks.iter().enumerate() {
                    let stands = label.parse::<f64>().unwrap();
                    assert!((stands - at).abs() < 1e-6 * highest, "{highest}: {marks:?}");
                    assert!(marks[..index].iter().all(|(_, other)| other != label), "{marks:?}");
                }
            }
        }
        assert_eq!(marks(0.0).len(), 1);
    }

    #[test]
    fn accuracy_stands_against_no_times_that_are_known_to_be_of_runs_side_by_side() {
        let config = |seed| fabricated::config("tuned", 1000, seed);
        let lora = |seed| fabricated::lora(config(seed), 16, 1.0);
        let methods =
            [(config(0), 0.8), (config(1), 0.81), (lora(0), 0.7), (lora(1), 0.71)].to_vec();
        let mut with_baseline = methods.clone();
        with_baseline.push((fabricated::tfidf(config(0)), 0.75));
        let alone = |record: &mut RunRecord| {
            let seed = record.config.seed as f64;
            let seconds = if record.config.method.kind() == MethodKind::Lora { 20.0 } else { 40.0 };
            record.results.as_mut().unwrap().epoch_seconds_alone = Some(seconds + 10.0 * seed);
        };
        let plot = |study: &Study| {
            let times = Times::of(study);
            let [(_, plot)] = time_plots(study, times).try_into().unwrap();
            (times, plot)
        };
        // 3 epochs of 40 and 50 s, and of 20 and 30 s. A baseline has none.
        let measured = study(&with_baseline, |record| {
            if !record.config.method.is_baseline() {
                alone(record);
            }
        });
        let (times, alone_plot) = plot(&measured);
        assert_eq!(times, Times::Alone);
        let expected = [("Vanilla".to_owned(), vec![2.25]), ("LoRA r=16".to_owned(), vec![1.25])];
        assert_eq!(at(&alone_plot), expected);
        assert!(alone_plot.x_title.en.contains("alone"));

        // AdapterFusion's first stage has no time of its own.
        let mut with_fusion = methods.clone();
        with_fusion.push((fabricated::fusion(config(0)), 0.8));
        let (times, epoch_plot) = plot(&study(&with_fusion, alone));
        assert_eq!(times, Times::EpochAlone);
        let expected =
            [("Vanilla", 45.0), ("AdapterFusion, Fuse(ko, nsmc)", 40.0), ("LoRA r=16", 25.0)];
        assert_eq!(at(&epoch_plot), expected.map(|(name, x)| (name.to_owned(), vec![x])));
        assert!(epoch_plot.x_title.en.starts_with("seconds per epoch"));

        // One run without, and no time compares methods.
        let one_left = study(&methods, |record| {
            if record.config.seed == 0 {
                alone(record);
            }
        });
        assert_eq!(Times::of(&one_left), Times::Shared);
        assert!(time_plots(&one_left, Times::Shared).is_empty());
        let sections = sections(&one_left);
        let reason = sections.iter().find(|section| section.id == "time").unwrap();
        assert!(
            reason.figures.is_empty() && reason.caption.en.contains("methods cannot be compared")
        );

        // Nothing is known but the times of whole runs: 400 s.
        let (times, whole_plot) = plot(&study(&methods, |_| {}));
        assert_eq!(times, Times::Whole);
        assert!(at(&whole_plot).iter().all(|(_, x)| *x == [400.0 / 60.0]), "{:?}", at(&whole_plot));
    }
}
