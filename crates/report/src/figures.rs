//! What is plotted.

use std::ops::Range;

use nsmc_eval::study::{Calibration, Cell, CellKey, Metric, Study};
use nsmc_eval::{PAPER, PaperRow, Words, method_words, size_words, with_thousands};
use nsmc_experiment::{EpochRecord, MethodKind, Rows};

use crate::attention::fusion_attention;
use crate::look::{Looks, usual};
use crate::plot::{Forest, ForestRow, Look, Plot, Point, Series};
use crate::time::{Times, by_time};
use crate::words::{self, words};

/// A plot and the name of its file.
#[derive(Clone, Debug)]
pub struct Figure {
    /// Without extension.
    pub name: String,
    /// What stands above it.
    pub title: Words,
    /// The SVG.
    pub svg: String,
    /// What its axes reach over; the second is empty where there are names.
    pub(crate) axes: [Range<f64>; 2],
}

impl Plot {
    pub(crate) fn figure(self, name: String) -> Figure {
        Figure { name, svg: self.svg(), title: self.title, axes: [self.x, self.y] }
    }
}

impl Forest {
    pub(crate) fn figure(self, name: String) -> Figure {
        Figure { name, svg: self.svg(), axes: [self.x(), 0.0..0.0], title: self.title }
    }
}

/// Cells that a plot shows together: those of a setting and recipe.
pub(crate) struct Panel<'a> {
    pub(crate) title: Words,
    pub(crate) name: String,
    pub(crate) cells: Vec<&'a Cell>,
    /// The baseline of the setting, which follows no recipe: a line to hold the methods against.
    beside: Vec<&'a Cell>,
}

impl<'a> Panel<'a> {
    /// The cells that are plotted.
    pub(crate) fn plotted(&self) -> Vec<&'a Cell> {
        self.cells.iter().chain(&self.beside).copied().collect()
    }
}

/// A panel per setting and recipe that compares methods.
pub(crate) fn panels(study: &Study) -> Vec<Panel<'_>> {
    let mut groups: Vec<(&str, &str)> = Vec::new();
    for cell in &study.cells {
        let group = (cell.key.setting.as_str(), cell.key.recipe.as_str());
        if !groups.contains(&group) {
            groups.push(group);
        }
    }
    let settings = groups.iter().filter(|(setting, _)| *setting != groups[0].0).count() > 0;
    let mut panels = Vec::new();
    for (index, (setting, recipe)) in groups.iter().enumerate() {
        let of_group = |cell: &&Cell| cell.key.setting == *setting && cell.key.recipe == *recipe;
        let mut cells: Vec<&Cell> = study.cells.iter().filter(of_group).collect();
        cells.retain(|cell| !cell.key.is_baseline());
        let mut methods: Vec<MethodKind> = cells.iter().map(|cell| cell.key.method).collect();
        methods.dedup();
        if methods.len() < 2 {
            continue;
        }
        let mut title = words::recipe(recipe);
        title.en = words::capital(&title.en);
        if settings {
            let Words { en, ko } = study.setting(setting);
            title = words(format!("{}; {en}", title.en), format!("{}; {ko}", title.ko));
        }
        let is_beside =
            |cell: &&Cell| cell.key.setting == *setting && cell.key.method == MethodKind::Tfidf;
        let beside = study.cells.iter().filter(is_beside).collect();
        panels.push(Panel { title, name: (index + 1).to_string(), cells, beside });
    }
    panels
}

/// A method in a plot, where there is no room for the translation of vanilla.
fn plotted_name(label: &str) -> Words {
    if label.starts_with("Vanilla") { label.into() } else { method_words(label) }
}

pub(crate) fn accuracy() -> Words {
    words("accuracy", "정확도")
}

fn difference_of_accuracies() -> Words {
    words("difference of accuracies", "정확도 차이")
}

/// The training reviews of a cell.
pub(crate) fn trained_on(cell: &Cell) -> Option<usize> {
    size_of(&cell.key, Some(cell))
}

fn size_of(key: &CellKey, cell: Option<&Cell>) -> Option<usize> {
    match key.train_size {
        Rows::Exactly(size) => Some(size),
        Rows::All => {
            let results = cell?.finished().next()?.record.results.as_ref()?;
            Some(results.train_reviews + results.validation_reviews)
        }
    }
}

pub(crate) fn accuracy_point(x: f64, cell: &Cell) -> Option<Point> {
    let interval = cell.accuracy_interval().map(|interval| (interval.low, interval.high));
    Some(Point { x, y: cell.mean(Metric::Accuracy)?, interval })
}

/// Cells by method, each method's in the order given.
pub(crate) fn by_method<'a>(
    looks: &Looks,
    cells: &[&'a Cell],
) -> Vec<(Words, Look, Vec<&'a Cell>)> {
    let mut methods: Vec<(Words, Look, Vec<&Cell>)> = Vec::new();
    for cell in cells {
        let known = methods.iter_mut().find(|(name, ..)| name.en == cell.key.label);
        match known {
            Some((_, _, cells)) => cells.push(cell),
            None => {
                methods.push((plotted_name(&cell.key.label), looks.get(&cell.key), vec![cell]));
            }
        }
    }
    methods
}

/// The range of the means, and of intervals no wider than a tenth: a wide one would flatten the rest.
pub(crate) fn accuracy_range(series: &[Series]) -> Range<f64> {
    let mut values = Vec::new();
    for point in series.iter().flat_map(|series| &series.points) {
        values.push(point.y);
        values.extend(
            point
                .interval
                .into_iter()
                .flat_map(|(low, high)| [low, high])
                .filter(|end| (end - point.y).abs() < 0.1),
        );
    }
    Plot::range(values).unwrap_or(0.0..1.0)
}

/// Accuracy against the number of training reviews, recipe by recipe, and the paper's beside them.
pub(crate) fn by_size(study: &Study) -> Vec<Figure> {
    let looks = Looks::of(study);
    let mut plots: Vec<(String, Plot)> = Vec::new();
    for panel in panels(study) {
        let series: Vec<Series> = by_method(&looks, &panel.plotted())
            .into_iter()
            .map(|(name, look, cells)| {
                let point =
                    |cell: &&Cell| accuracy_point(size_of(&cell.key, Some(cell))? as f64, cell);
                Series { name, look, points: cells.iter().filter_map(point).collect() }
            })
            .filter(|series| !series.points.is_empty())
            .collect();
        if !series.is_empty() {
            plots.push((format!("size-{}", panel.name), size_plot(panel.title, series)));
        }
    }
    if study.is_compared_with_the_paper() {
        let mut series: Vec<Series> = Vec::new();
        for row in &PAPER {
            let PaperRow { train_size, method, rank, accuracy, .. } = *row;
            let name: Words = match (method, rank) {
                (MethodKind::Vanilla, _) => "Vanilla".into(),
                (MethodKind::AdapterFusion, _) => "AdapterFusion".into(),
                (_, rank) => format!("LoRA r={}", rank.unwrap_or_default()).into(),
            };
            let point = Point { x: train_size as f64, y: accuracy, interval: None };
            match series.iter_mut().find(|series| series.name == name) {
                Some(series) => series.points.push(point),
                None => {
                    series.push(Series { name, look: usual(method, rank), points: vec![point] });
                }
            }
        }
        let title = words("As the paper has it: multilingual BERT", "논문의 결과: 다국어 BERT");
        plots.push(("size-paper".into(), size_plot(title, series)));
    }
    plots.into_iter().map(|(name, plot)| plot.figure(name)).collect()
}

fn size_plot(title: Words, mut series: Vec<Series>) -> Plot {
    let mut sizes: Vec<f64> =
        series.iter().flat_map(|series| &series.points).map(|point| point.x).collect();
    sizes.sort_by(f64::total_cmp);
    sizes.dedup();
    let (low, high) = (sizes[0], sizes[sizes.len() - 1]);
    let more = if low < high { (high - low) * 0.1 } else { low * 0.1 };
    let x = low - more..high + more;
    // Side by side, for the intervals of one size would cover each other.
    let share = if sizes.len() == 1 { 0.08 } else { 0.012 };
    let (step, middle) = ((x.end - x.start) * share, (series.len() as f64 - 1.0) / 2.0);
    for (index, series) in series.iter_mut().enumerate() {
        for point in &mut series.points {
            point.x += (index as f64 - middle) * step;
        }
    }
    Plot {
        title,
        x_title: words("training reviews", "학습 데이터 크기"),
        y_title: accuracy(),
        x_marks: sizes.iter().map(|&size| (size, with_thousands(size as usize))).collect(),
        x,
        y: accuracy_range(&series),
        series,
        diagonal: false,
    }
}

/// Loss and validation accuracy by epoch, at the largest size of each recipe; means over seeds.
pub(crate) fn learning_curves(study: &Study) -> Vec<Figure> {
    type Value = fn(&EpochRecord) -> Option<f64>;
    let values: [(&str, Words, Value); 2] = [
        ("loss", words("training loss", "학습 손실"), |epoch| Some(epoch.train_loss)),
        ("validation", words("validation accuracy", "검증 정확도"), |epoch| {
            epoch.validation_accuracy
        }),
    ];
    let looks = Looks::of(study);
    let mut figures = Vec::new();
    for panel in panels(study) {
        let largest = largest(&panel.cells);
        for (short, title, value) in &values {
            let series: Vec<Series> = by_method(&looks, &largest)
                .into_iter()
                .map(|(name, look, cells)| Series {
                    name,
                    look,
                    points: cells.iter().flat_map(|cell| curve(cell, *value)).collect(),
                })
                .filter(|series| !series.points.is_empty())
                .collect();
            let points: Vec<Point> =
                series.iter().flat_map(|series| series.points.clone()).collect();
            let epochs = points.iter().map(|point| point.x).fold(0.0, f64::max);
            let Some(y) = Plot::range(points.iter().map(|point| point.y)) else { continue };
            let plot = Plot {
                title: words(
                    format!("{}: {}", panel.title.en, title.en),
                    format!("{}: {}", panel.title.ko, title.ko),
                ),
                x_title: words("epoch", "에폭"),
                y_title: title.clone(),
                x_marks: (1..=epochs as usize)
                    .map(|epoch| (epoch as f64, epoch.to_string()))
                    .collect(),
                x: 0.7..epochs + 0.3,
                y,
                series,
                diagonal: false,
            };
            figures.push(plot.figure(format!("curves-{}-{short}", panel.name)));
        }
    }
    figures
}

fn curve(cell: &Cell, value: fn(&EpochRecord) -> Option<f64>) -> Vec<Point> {
    let mut points: Vec<(f64, Vec<f64>)> = Vec::new();
    for run in cell.finished() {
        for epoch in run.record.results.iter().flat_map(|results| &results.epochs) {
            let Some(y) = value(epoch) else { continue };
            let x = epoch.epoch as f64;
            match points.iter_mut().find(|(at, _)| (at - x).abs() < 0.5) {
                Some((_, values)) => values.push(y),
                None => points.push((x, vec![y])),
            }
        }
    }
    let point = |(x, values): (f64, Vec<f64>)| Some(Point { x, y: mean(&values)?, interval: None });
    points.into_iter().filter_map(point).collect()
}

/// None of nothing.
pub(crate) fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// The cells of the largest training size that has a finished run.
pub(crate) fn largest<'a>(cells: &[&'a Cell]) -> Vec<&'a Cell> {
    let finished: Vec<&Cell> =
        cells.iter().copied().filter(|cell| cell.finished().next().is_some()).collect();
    let size = finished.iter().filter_map(|cell| size_of(&cell.key, Some(cell))).max();
    finished.into_iter().filter(|cell| size_of(&cell.key, Some(cell)) == size).collect()
}

/// Share of right answers against confidence, at the largest size of each recipe.
pub(crate) fn reliability(study: &Study) -> Vec<Figure> {
    let looks = Looks::of(study);
    let mut figures = Vec::new();
    for panel in panels(study) {
        let series: Vec<Series> = by_method(&looks, &largest(&panel.plotted()))
            .into_iter()
            .map(|(name, look, cells)| {
                let calibration = Calibration::new(cells.iter().flat_map(|cell| cell.answers()));
                // A handful of reviews says nothing of their share.
                let enough = calibration.bins.iter().filter(|bin| bin.reviews >= 20);
                let point = |bin: &nsmc_eval::study::CalibrationBin| Point {
                    x: bin.confidence,
                    y: bin.accuracy,
                    interval: None,
                };
                Series { name, look, points: enough.map(point).collect() }
            })
            .filter(|series| !series.points.is_empty())
            .collect();
        if series.is_empty() {
            continue;
        }
        let points = series.iter().flat_map(|series| &series.points);
        let low = points.flat_map(|point| [point.x, point.y]).fold(0.5, f64::min);
        let start = (low * 10.0).floor() / 10.0;
        let mut x_marks = Vec::new();
        for tenth in (start * 10.0).round() as usize..=10 {
            x_marks.push((tenth as f64 / 10.0, format!("{:.1}", tenth as f64 / 10.0)));
        }
        let plot = Plot {
            title: panel.title,
            x_title: words("probability of the predicted class", "예측한 클래스의 확률"),
            y_title: words("share predicted rightly", "정답률"),
            x_marks,
            x: start..1.02,
            y: start..1.02,
            series,
            diagonal: true,
        };
        figures.push(plot.figure(format!("calibration-{}", panel.name)));
    }
    figures
}

/// LoRA's accuracy against its rank, where a recipe has more than one and one cell of each.
pub(crate) fn by_rank(study: &Study) -> Vec<Figure> {
    let mut figures = Vec::new();
    for panel in panels(study) {
        let cells = largest(&panel.cells);
        let mut points: Vec<Point> = cells
            .iter()
            .filter_map(|cell| accuracy_point((cell.key.rank? as f64).log2(), cell))
            .collect();
        points.sort_by(|a, b| a.x.total_cmp(&b.x));
        // Cells of one rank differ in something else, too: no line leads through them.
        let repeats = points.windows(2).any(|pair| pair[1].x - pair[0].x < 1e-9);
        if points.len() < 2 || repeats {
            continue;
        }
        let x = points[0].x - 0.3..points[points.len() - 1].x + 0.3;
        let x_marks =
            points.iter().map(|point| (point.x, format!("{:.0}", point.x.exp2()))).collect();
        let series =
            vec![Series { name: "LoRA".into(), look: usual(MethodKind::Lora, None), points }];
        let plot = Plot {
            title: panel.title,
            x_title: words("rank", "랭크"),
            y_title: accuracy(),
            x_marks,
            x,
            y: accuracy_range(&series),
            series,
            diagonal: false,
        };
        figures.push(plot.figure(format!("rank-{}", panel.name)));
    }
    figures
}

/// The differences of methods, with their intervals and the paper's.
pub(crate) fn differences(study: &Study) -> Vec<Figure> {
    let looks = Looks::of(study);
    let mut figures = Vec::new();
    for panel in panels(study) {
        let mut rows = Vec::new();
        for contrast in study.contrasts.iter().filter(|contrast| contrast.is_of_methods()) {
            let (first, second) = (&study.cells[contrast.first], &study.cells[contrast.second]);
            let here = panel.cells.iter().any(|cell| std::ptr::eq(*cell, first));
            let shown = here && !second.key.is_probe();
            let (true, Some(pair)) = (shown, &contrast.pair) else { continue };
            let paper = first.paper(study.paper_scale).zip(second.paper(study.paper_scale));
            let size = size_of(&first.key, Some(first));
            let size =
                size.map_or_else(|| words("all", "전체"), |size| with_thousands(size).into());
            let [one, other] = [first, second].map(|cell| plotted_name(&cell.key.label));
            rows.push(ForestRow {
                name: words(
                    format!("{}: {} − {}", size.en, one.en, other.en),
                    format!("{}: {} − {}", size.ko, one.ko, other.ko),
                ),
                look: looks.get(&second.key),
                value: pair.bootstrap.difference,
                interval: (pair.bootstrap.interval.low, pair.bootstrap.interval.high),
                other: paper.map(|(first, second)| first.accuracy - second.accuracy),
            });
        }
        if !rows.is_empty() {
            let x_title = difference_of_accuracies();
            let forest = Forest { title: panel.title, x_title, rows };
            figures.push(forest.figure(format!("differences-{}", panel.name)));
        }
    }
    figures
}

fn differences_caption(study: &Study) -> Words {
    let (hollow, hollow_ko) = match study.is_compared_with_the_paper() {
        true => (" Hollow marks: the paper's differences.", " 속이 빈 표시는 논문의 차이입니다."),
        false => ("", ""),
    };
    words(
        format!(
            "Differences of mean accuracies, the first method less the second. Horizontal bars: 95 % \
             intervals. Right of the vertical line, the first method is more accurate.{hollow}"
        ),
        format!(
            "평균 정확도의 차이(첫 번째 방법 − 두 번째 방법)입니다. 가로 막대는 95% 신뢰구간입니다. 세로선 오른쪽이면 첫 번째 \
             방법이 더 정확합니다.{hollow_ko}"
        ),
    )
}

/// What each change of recipe does to the paper's LoRA.
pub(crate) fn changes(study: &Study) -> Vec<Figure> {
    let looks = Looks::of(study);
    let mut rows = Vec::new();
    for contrast in study.contrasts.iter().filter(|contrast| !contrast.is_of_methods()) {
        let cell = &study.cells[contrast.first];
        let is_lora = cell.key.method == MethodKind::Lora;
        let (true, Some(pair)) = (is_lora, &contrast.pair) else { continue };
        let size = size_words(cell.key.train_size);
        let what = match contrast.factors.as_slice() {
            [factor] => {
                let key = words::key(&factor.key);
                let change = format!("{} → {}", factor.first, factor.second);
                words(format!("{} {change}", key.en), format!("{} {change}", key.ko))
            }
            factors => {
                let (recipe, count) = (words::recipe(&cell.key.recipe), factors.len());
                words(
                    format!("{}: {count} settings at once", recipe.en),
                    format!("{}: 설정 항목 {count}개를 함께 변경", recipe.ko),
                )
            }
        };
        let rank = cell.key.rank.unwrap_or_default();
        rows.push(ForestRow {
            name: words(
                format!("{}, r={rank}: {}", size.en, what.en),
                format!("{}, r={rank}: {}", size.ko, what.ko),
            ),
            look: looks.get(&cell.key),
            value: pair.bootstrap.difference,
            interval: (pair.bootstrap.interval.low, pair.bootstrap.interval.high),
            other: None,
        });
    }
    if rows.is_empty() {
        return Vec::new();
    }
    let title = words(
        "Difference from LoRA with the paper's recipe",
        "논문의 학습 설정을 쓴 LoRA와의 차이",
    );
    let forest = Forest { title, x_title: difference_of_accuracies(), rows };
    vec![forest.figure("changes".into())]
}

fn changes_caption() -> Words {
    words(
        "Accuracy of LoRA with another recipe, less that with the paper's. Horizontal bars: 95 % \
         intervals. Right of the vertical line, the other recipe is more accurate. A row that names one \
         setting changes that alone.",
        "다른 학습 설정을 쓴 LoRA의 정확도에서 논문의 학습 설정을 쓴 LoRA의 정확도를 뺀 차이입니다. 가로 막대는 95% \
         신뢰구간입니다. 세로선 오른쪽이면 다른 학습 설정이 더 정확합니다. 설정 항목의 이름이 적힌 행은 그 항목만 바꾼 \
         결과입니다.",
    )
}

fn curves_caption(study: &Study) -> Words {
    let runs = panels(study);
    let mut runs = runs.iter().flat_map(|panel| &panel.cells).flat_map(|cell| cell.finished());
    let held_out = runs.any(|run| {
        run.record.results.as_ref().is_some_and(|results| results.validation_reviews > 0)
    });
    let (validation, validation_ko) = match held_out {
        true => (
            " Validation reviews are held out of the training file.",
            " 검증 리뷰는 학습 파일에서 떼어 두었습니다.",
        ),
        false => ("", ""),
    };
    words(
        format!(
            "By epoch, means over seeds, at the largest training size. AdapterFusion's curves are of its \
             second stage.{validation}"
        ),
        format!(
            "가장 큰 학습 데이터 크기의 에폭별 값으로, 시드 평균입니다. AdapterFusion은 2단계의 값입니다.{validation_ko}"
        ),
    )
}

/// Whether plots that stand side by side cannot be compared by eye.
fn axes_differ(figures: &[Figure]) -> bool {
    figures.windows(2).any(|pair| pair[0].axes != pair[1].axes)
}

/// A part of the report: its plots under one heading. Without plots, the caption says why.
pub(crate) struct Section {
    pub(crate) id: &'static str,
    pub(crate) heading: Words,
    pub(crate) caption: Words,
    pub(crate) figures: Vec<Figure>,
}

/// Every part that has plots or a reason to have none, in the order of reading.
pub(crate) fn sections(study: &Study) -> Vec<Section> {
    let section = |id, heading, mut caption: Words, figures: Vec<Figure>| {
        if axes_differ(&figures) {
            caption.en += " The plots' axes differ.";
            caption.ko += " 그림마다 축의 범위가 다릅니다.";
        }
        Section { id, heading, caption, figures }
    };
    let times = Times::of(study);
    let all = [
        section(
            "differences",
            words("How far apart the methods are", "방법 사이의 차이"),
            differences_caption(study),
            differences(study),
        ),
        section(
            "size",
            words("Accuracy and the number of training reviews", "학습 데이터 크기와 정확도"),
            words(
                "Mean accuracy over seeds. The methods of one training size stand side by side. Bars: 95 % \
                 intervals, Student's t over seeds with the test set fixed, or Wilson's over reviews if \
                 there is one seed. What leaves the plot is cut off.",
                "정확도의 시드 평균이며, 학습 데이터 크기가 같은 방법들은 옆으로 조금씩 벌려 그렸습니다. 막대는 95% \
                 신뢰구간으로, 시드가 여럿이면 테스트 데이터를 고정하고 시드 간 변동만 반영한 t 분포 신뢰구간, 하나면 리뷰에 \
                 대한 Wilson 신뢰구간입니다. 그림을 벗어나는 부분은 잘라 냈습니다.",
            ),
            by_size(study),
        ),
        section(
            "time",
            words("Accuracy and time", "시간과 정확도"),
            times.caption(),
            by_time(study, times),
        ),
        section(
            "changes",
            words("What the recipe does to LoRA", "학습 설정이 LoRA에 미치는 영향"),
            changes_caption(),
            changes(study),
        ),
        section(
            "rank",
            words("LoRA's rank", "LoRA의 랭크"),
            words(
                "LoRA's accuracy by its rank, at the largest training size.",
                "가장 큰 학습 데이터 크기에서 랭크에 따른 LoRA의 정확도입니다.",
            ),
            by_rank(study),
        ),
        section(
            "curves",
            words("Learning curves", "학습 곡선"),
            curves_caption(study),
            learning_curves(study),
        ),
        section(
            "calibration",
            words("Calibration", "캘리브레이션(확률 보정)"),
            words(
                format!(
                    "The predictions of all seeds, in {} bins of equal width from 0 to 1 by the \
                     probability of the predicted class. Bins with fewer than 20 predictions are left \
                     out of the plot. On the diagonal, the probability is the share of right \
                     predictions. The expected calibration error (ECE) of a run is Σ n(b)/n · |accuracy(b) − \
                     mean probability(b)| over all bins; the table shows its mean over runs.",
                    Calibration::BINS
                ),
                format!(
                    "모든 시드의 예측을 모아, 예측한 클래스의 확률(0~1)에 따라 같은 폭의 구간 {}개로 나누어 묶었습니다. \
                     예측이 20건 미만인 구간은 그림에서 뺐습니다. 점이 대각선에 있으면 확률과 실제 정답률이 같습니다. 기대 \
                     캘리브레이션 오차(ECE)는 모든 구간에 대한 Σ n(b)/n · |정확도(b) − 평균 확률(b)|를 실험마다 계산해 \
                     평균한 값입니다.",
                    Calibration::BINS
                ),
            ),
            reliability(study),
        ),
        section(
            "attention",
            words("What the fusion attends to", "AdapterFusion의 어댑터별 어텐션 가중치"),
            words(
                "Mean attention weights of the fused adapters over the test set, per layer. The weights of \
                 a layer add up to 1, so that of two adapters only the first is drawn; the second has \
                 the rest. Means over seeds at the largest training size.",
                "테스트 데이터에서 각 어댑터가 층마다 받은 어텐션 가중치의 평균입니다. 한 층의 가중치를 모두 더하면 1이므로, \
                 어댑터가 둘이면 첫째만 그렸고 나머지는 둘째의 몫입니다. 가장 큰 학습 데이터 크기에서 시드 평균을 구했습니다.",
            ),
            fusion_attention(study),
        ),
    ];
    let reason = |section: &Section| section.id == "time" && times == Times::Shared;
    all.into_iter().filter(|section| !section.figures.is_empty() || reason(section)).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::attention::tests::fusion_of_three;
    use crate::fabricated;

    #[test]
    fn methods_of_one_size_stand_side_by_side_around_it() {
        for sizes in [vec![1000.0], vec![500.0, 1000.0]] {
            let points = |sizes: &[f64]| -> Vec<Point> {
                sizes.iter().map(|&x| Point { x, y: 0.8, interval: None }).collect()
            };
            let look = usual(MethodKind::Vanilla, None);
            let series: Vec<Series> = (0..6)
                .map(|index| format!("method {index}").as_str().into())
                .map(|name| Series { name, look, points: points(&sizes) })
                .collect();
            let plot = size_plot("title".into(), series);
            assert_eq!(plot.x_marks.len(), sizes.len());
            for (index, size) in sizes.iter().enumerate() {
                let places: Vec<f64> = plot.series.iter().map(|one| one.points[index].x).collect();
                assert!(places.windows(2).all(|pair| pair[1] - pair[0] > 1.0), "{places:?}");
                assert!(places.iter().all(|place| plot.x.contains(place)), "{places:?}");
                assert!((places.iter().sum::<f64>() / 6.0 - size).abs() < 1e-9, "{places:?}");
            }
        }
    }

    #[test]
    fn each_recipe_has_a_range_of_its_own_and_the_caption_says_so() {
        let folder = tempfile::tempdir().unwrap();
        fabricated::grid(folder.path());
        let study = Study::read_runs(folder.path(), None).unwrap();
        let times = Times::of(&study);
        for figures in [by_size(&study), by_time(&study, times)] {
            let [paper, tuned] = figures.as_slice() else { panic!("a plot per recipe") };
            let heights = [paper, tuned].map(|figure| figure.axes[1].end - figure.axes[1].start);
            // LoRA collapses with the first alone.
            assert!(heights[0] > 2.0 * heights[1], "{heights:?}");
        }
        let said = |study: &Study, id: &str| {
            let sections = sections(study);
            let section = sections.iter().find(|section| section.id == id).unwrap();
            let Words { en, ko } = &section.caption;
            assert_eq!(en.contains("axes differ"), ko.contains("축의 범위가 다릅니다"));
            en.contains("axes differ")
        };
        assert!(said(&study, "size") && said(&study, "time") && said(&study, "differences"));
        assert!(!said(&study, "changes"), "it has one plot");
        assert!(!said(&study, "attention"), "its plots have the same axes");
    }

    #[test]
    fn reviews_are_said_to_be_held_out_only_where_some_are() {
        let folder = tempfile::tempdir().unwrap();
        fabricated::grid(folder.path());
        let mut study = Study::read_runs(folder.path(), None).unwrap();
        let held_out = |study: &Study| {
            let Words { en, ko } = curves_caption(study);
            assert_eq!(en.contains("held out"), ko.contains("떼어 두었습니다"), "{en}\n{ko}");
            en.contains("held out")
        };
        assert!(held_out(&study));
        for run in study.cells.iter_mut().flat_map(|cell| &mut cell.runs) {
            if let Some(results) = &mut Arc::make_mut(run).record.results {
                results.validation_reviews = 0;
            }
        }
        assert!(!held_out(&study));
    }

    #[test]
    fn ranks_are_plotted_only_where_nothing_else_differs() {
        let folder = tempfile::tempdir().unwrap();
        let lora =
            |rank, alpha| fabricated::lora(fabricated::config("paper", 1000, 0), rank, alpha);
        fabricated::run(folder.path(), &fabricated::config("paper", 1000, 0), 0.86, 1.0);
        for rank in [16, 64] {
            fabricated::run(folder.path(), &lora(rank, 1.0), 0.7, 1.0);
        }
        let names = || -> Vec<String> {
            let figures = by_rank(&Study::read_runs(folder.path(), None).unwrap());
            figures.into_iter().map(|figure| figure.name).collect()
        };
        assert_eq!(names(), ["rank-1"]);
        fabricated::run(folder.path(), &lora(16, 128.0), 0.8, 1.0);
        assert!(names().is_empty(), "r=16 is there twice");
    }

    #[test]
    fn two_fusions_of_one_recipe_look_different_in_every_plot() {
        let config = |size| fabricated::config("tuned", size, 0);
        let folder = tempfile::tempdir().unwrap();
        for size in [1000, 500] {
            fabricated::run(folder.path(), &config(size), 0.86, 1.0);
            fabricated::run(folder.path(), &fabricated::fusion(config(size)), 0.82, 1.0);
            fabricated::run(folder.path(), &fusion_of_three(config(size)), 0.78, 1.0);
        }
        let study = Study::read_runs(folder.path(), None).unwrap();
        let looks = Looks::of(&study);
        let series = by_method(&looks, &panels(&study)[0].plotted());
        let found: Vec<(&str, usize)> =
            series.iter().map(|(name, _, cells)| (name.en.as_str(), cells.len())).collect();
        let expected = ["Vanilla", "AdapterFusion, Fuse(ko, nsmc)"].map(|name| (name, 2));
        assert_eq!(found[..2], expected);
        assert_eq!(found[2], ("AdapterFusion, Fuse(ko, stars, nsmc)", 2));
        assert_eq!(series[1].1, usual(MethodKind::AdapterFusion, None));
        assert!(
            series[1].1.colour != series[2].1.colour && series[1].1.marker != series[2].1.marker
        );
        // The colours reach what is drawn: text, of a forest plot, has none.
        let drawn = &differences(&study)[0].svg;
        for (_, look, _) in &series[1..] {
            let colour = look.colour.css();
            assert!(drawn.contains(colour.trim_end_matches(')')), "{colour}");
        }
    }
}
