use std::collections::BTreeSet;

use maud::{DOCTYPE, Markup, PreEscaped, html};
use nsmc_eval::compare::p_value;
use nsmc_eval::statistics::Interval;
use nsmc_eval::study::{Calibration, Cell, Study, StudyTable, Verdict, difference};
use nsmc_eval::{
    BilingualTable, Words, method_words, minutes_and_seconds, size_words, with_thousands,
};
use nsmc_experiment::{MethodKind, ModelConfig, Provenance, RunRecord, Stretch};

use crate::disagreement::Disagreement;
use crate::figures::{Figure, Section, panels, sections};
use crate::look::Looks;
use crate::words::words;
use crate::{Report, disagreement, language, palette};

/// A text in both languages, of which the style sheet shows one; once if it is the same.
fn both(Words { en, ko }: &Words) -> Markup {
    if en == ko {
        return lines(en);
    }
    html! { span.en lang="en" { (lines(en)) } span.ko lang="ko" { (lines(ko)) } }
}

fn lines(text: &str) -> Markup {
    html! {
        @for (index, line) in text.split('\n').enumerate() {
            @if index > 0 { br; }
            (line)
        }
    }
}

fn heading(en: &str, ko: &str) -> Markup {
    html! { h2 { (both(&words(en, ko))) } }
}

pub(crate) fn render(report: &Report<'_>) -> String {
    let study = report.study;
    let verdict = Verdict::new(study);
    let style = format!("{}{}", palette::style_sheet(), include_str!("style.css"));
    let body = html! {
        form.language aria-label="Language, 언어" {
            label { input type="radio" name="language" id="english" checked; "English" }
            label { input type="radio" name="language" id="korean"; "한국어" }
        }
        header {
            p.kicker { (both(&words("Report of", "보고서:"))) " " (study.name) }
            h1 { (both(&title(study))) }
            p.about { (both(&lead(study))) }
        }
        main {
            section #verdict {
                (heading("Verdict", "결론"))
                @for sentence in crate::words::verdict(study, &verdict) { p.verdict { (both(&sentence)) } }
                @if !verdict.recipes.is_empty() { p.about { (both(&crate::words::legend(study))) } }
                @if !study.is_of_own_data() { (claims(study, &verdict)) }
                @let caveats = crate::words::caveats(study, &verdict);
                @if !caveats.is_empty() {
                    ul.caveats { @for caveat in &caveats { li { (both(caveat)) } } }
                }
            }
            section #results {
                @if study.is_compared_with_the_paper() {
                    (heading("Results beside the paper's", "논문 결과와의 비교"))
                } @else {
                    (heading("Results", "결과"))
                }
                @for (index, table) in study.quality_tables().iter().enumerate() {
                    (study_table(table, &format!("quality-{index}")))
                }
            }
            @for section in sections(study) { (plots(study, &section)) }
            (confusion(study))
            (disagreements(report))
            section #tables {
                (heading("All differences and costs", "모든 비교 결과와 비용"))
                @let tables = [study.difference_table(), study.recipe_table(), Some(study.cost_table())];
                @for table in tables.iter().flatten() { (study_table(table, &table.name)) }
                @if let Some(table) = study.trouble_table() { (study_table(&table, &table.name)) }
            }
            (made(study))
        }
    };
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { "nsmc: " (study.name) }
                // Without an icon of its own, a page from a server asks for one.
                link rel="icon" href="data:,";
                style { (PreEscaped(style)) }
            }
            body { (body) }
        }
    };
    page.into_string()
}

/// What the report asks.
fn lead(study: &Study) -> Words {
    if study.is_of_own_data() {
        words(
            "Which way to fine-tune is the most accurate on these data, and what does it cost?",
            "이 데이터에서는 어떤 미세조정 방법이 가장 정확하고, 비용은 얼마나 들까요?",
        )
    } else if is_of_pretraining(study) {
        words(
            "How much does pre-training add to the accuracy of full fine-tuning?",
            "사전학습은 전체 미세조정의 정확도를 얼마나 높일까요?",
        )
    } else {
        words(
            "A paper from Kookmin University found multilingual BERT most accurate when all of it is \
             fine-tuned (vanilla), followed by AdapterFusion and, far behind, LoRA. Does that hold?",
            "국민대학교의 논문은 다국어 BERT의 정확도가 전체 미세조정(Vanilla)에서 가장 높고, AdapterFusion이 그다음이며, \
             LoRA는 크게 뒤진다고 보고했습니다. 정말 그럴까요?",
        )
    }
}

/// Whether it fine-tunes models with and without pre-training, and compares no methods.
fn is_of_pretraining(study: &Study) -> bool {
    let cells = || study.cells.iter().filter(|cell| !cell.key.is_baseline());
    let any = |scratch: bool| {
        let mut configs = cells().filter_map(|cell| cell.config());
        configs.any(|config| matches!(config.model, ModelConfig::Scratch(_)) == scratch)
    };
    cells().all(|cell| cell.key.method == MethodKind::Vanilla) && any(true) && any(false)
}

/// What was compared on what: the paper's data, or one's own.
fn title(study: &Study) -> Words {
    let mut datasets: Vec<&str> = Vec::new();
    for config in study.cells.iter().filter_map(|cell| cell.config()) {
        if !datasets.contains(&config.data.dataset.as_str()) {
            datasets.push(&config.data.dataset);
        }
    }
    let on = match datasets.as_slice() {
        [] | ["nsmc"] => words("Korean movie reviews", "한국어 영화 리뷰"),
        ["sample"] => words("synthetic sample reviews", "합성 예제 리뷰"),
        others => others.join(", ").as_str().into(),
    };
    if is_of_pretraining(study) {
        return words(
            format!("Full fine-tuning with and without pre-training on {}", on.en),
            format!("사전학습 유무에 따른 {} 전체 미세조정 비교", on.ko),
        );
    }
    words(
        format!("Full fine-tuning, AdapterFusion and LoRA on {}", on.en),
        format!("{}에서 비교한 전체 미세조정, AdapterFusion, LoRA", on.ko),
    )
}

/// The claims that the verdict counts.
fn claims(study: &Study, verdict: &Verdict) -> Markup {
    let rows: Vec<_> = verdict
        .recipes
        .iter()
        .flat_map(|recipe| recipe.orders.iter().map(move |claim| (recipe, claim)))
        .collect();
    if rows.is_empty() {
        return html! {};
    }
    html! {
        figure.table {
            h3 #claims-title { (both(&words(
                "The paper's order, claim by claim",
                "논문의 순위: 쌍별 검증",
            ))) }
            (scroll("claims-title", &html! { table {
                thead { tr {
                    th scope="col" { (both(&words("recipe", "학습 설정"))) }
                    th.number scope="col" { (both(&words("reviews", "학습 데이터\n크기"))) }
                    th scope="col" { (both(&words("claim", "논문의 순위"))) }
                    th.number scope="col" { (both(&words("difference", "차이"))) }
                    th.number scope="col" { (both(&words("95 % interval", "95% 신뢰구간"))) }
                    th.number scope="col" { "p" }
                    th scope="col" { (both(&words("finding", "판정"))) }
                } }
                tbody { @for (recipe, claim) in rows {
                    @let pair = claim.contrast.and_then(|index| study.contrasts[index].pair.as_ref());
                    tr {
                        td { (self::recipe(&recipe.recipe)) }
                        td.number { (both(&size_words(claim.train_size))) }
                        td {
                            (both(&method_words(&claim.better))) " > " (both(&method_words(&claim.worse)))
                        }
                        @if let Some(pair) = pair {
                            td.number { (difference(pair.bootstrap.difference)) }
                            @let Interval { low, high } = pair.bootstrap.interval;
                            td.number { (both(&words(
                                format!("{} to {}", difference(low), difference(high)),
                                format!("{}~{}", difference(low), difference(high)),
                            ))) }
                            td.number { (p_value(pair.holm_p)) }
                        } @else { td.number { "–" } td.number { "–" } td.number { "–" } }
                        td class=(format!("{:?}", claim.finding).to_lowercase()) {
                            (both(&crate::words::finding(claim.finding)))
                        }
                    }
                } }
            } }))
            figcaption { (both(&words(
                "A claim holds if the 95 % interval of the difference lies above 0 and McNemar's p, \
                 corrected by Holm over all comparisons of the recipe, below 0.05. The intervals are not \
                 corrected for multiple comparisons.",
                "차이의 95% 신뢰구간 전체가 0보다 크고, 같은 학습 설정의 모든 비교에 대해 Holm 방법으로 보정한 McNemar 검정의 \
                 p값이 0.05보다 작으면 재현된 것으로 판정합니다. 신뢰구간은 다중 비교를 보정하지 않은 값입니다.",
            ))) }
        }
    }
}

/// What may be wider than the page: a region of its own, which the keyboard can scroll. `name` is the
/// id of what it is called by.
fn scroll(name: &str, content: &Markup) -> Markup {
    html! { div.scroll tabindex="0" role="region" aria-labelledby=(name) { (content) } }
}

fn study_table(StudyTable { title, note, table, .. }: &StudyTable, id: &str) -> Markup {
    let name = format!("table-{id}-title");
    html! {
        figure.table {
            h3 id=(name) { (both(title)) }
            (html_table(table, &name))
            figcaption { (both(note)) }
        }
    }
}

/// `name` is the id of what the table is called by.
fn html_table(table: &BilingualTable, name: &str) -> Markup {
    let class = |index: usize| (index >= table.left()).then_some("number");
    let content = html! {
        table {
            thead { tr { @for (index, title) in table.header().iter().enumerate() {
                th class=[class(index)] scope="col" { (both(title)) }
            } } }
            tbody { @for row in table.rows() {
                tr { @for (index, cell) in row.iter().enumerate() {
                    td class=[class(index)] { (both(cell)) }
                } }
            } }
        }
    };
    scroll(name, &content)
}

fn plots(study: &Study, section: &Section) -> Markup {
    html! {
        section id=(section.id) {
            h2 { (both(&section.heading)) }
            @if section.figures.is_empty() {
                p.about { (both(&section.caption)) }
            } @else {
                figure {
                    div.plots { @for figure in &section.figures { (plot(figure, section.id)) } }
                    figcaption id=(caption_id(section.id)) { (both(&section.caption)) }
                }
            }
            @if section.id == "calibration" { (calibration_errors(study)) }
        }
    }
}

fn caption_id(section: &str) -> String {
    format!("{section}-caption")
}

/// A plot in both languages, named by its title and the caption beneath, of which the style sheet shows
/// one language. The title is there once more, unseen: within an image, nothing has a name.
fn plot(figure: &Figure, section: &str) -> Markup {
    let title = format!("{}-title", figure.name);
    let names = format!("{title} {}", caption_id(section));
    let label = format!("<svg role=\"img\" aria-labelledby=\"{names}\"");
    html! {
        div {
            h3.said id=(title) { (both(&figure.title)) }
            (PreEscaped(language::in_both(&figure.svg).replacen("<svg", &label, 1)))
        }
    }
}

fn calibration_errors(study: &Study) -> Markup {
    let mut table = BilingualTable::new(
        [
            words("recipe", "학습 설정"),
            words("reviews", "학습 데이터\n크기"),
            words("method", "방법"),
            words("expected\ncalibration error", "기대 캘리브레이션\n오차(ECE)"),
            words("mean\nprobability", "평균\n확률"),
            words("accuracy", "정확도"),
        ],
        3,
    );
    for panel in panels(study) {
        for cell in crate::figures::largest(&panel.cells) {
            let calibration = Calibration::new(cell.answers());
            let mean = |value: fn(&nsmc_eval::study::CalibrationBin) -> f64| {
                let sum: f64 =
                    calibration.bins.iter().map(|bin| value(bin) * bin.reviews as f64).sum();
                format!("{:.4}", sum / calibration.reviews as f64).into()
            };
            table.push([
                recipe(&cell.key.recipe).into(),
                size_words(cell.key.train_size),
                method_words(&cell.key.label),
                format!("{:.4}", Calibration::mean_error(cell.answers())).into(),
                mean(|bin| bin.confidence),
                mean(|bin| bin.accuracy),
            ]);
        }
    }
    html! {
        figure.table {
            h3 #calibration-errors { (both(&words(
                "Expected calibration errors",
                "기대 캘리브레이션 오차(ECE)",
            ))) }
            (html_table(&table, "calibration-errors"))
        }
    }
}

/// Counts of true and predicted classes, all seeds together.
fn confusion(study: &Study) -> Markup {
    let cells: Vec<&Cell> = panels(study)
        .iter()
        .flat_map(|panel| crate::figures::largest(&panel.cells))
        .filter(|cell| cell.config().is_some_and(|config| config.data.labels.len() <= 6))
        .collect();
    if cells.is_empty() {
        return html! {};
    }
    let looks = Looks::of(study);
    html! {
        section #confusion {
            (heading("Confusion", "혼동 행렬"))
            figure {
                div.confusions { @for cell in cells { (matrix(cell, &looks)) } }
                figcaption { (both(&words(
                    "Rows are true classes, columns predicted ones. Each cell has its share of the row and \
                     its count, over all seeds, at the largest training size.",
                    "행은 실제 클래스, 열은 예측한 클래스입니다. 각 칸은 가장 큰 학습 데이터 크기에서 모든 시드를 합쳐 구한 행별 \
                     비율과 건수입니다.",
                ))) }
            }
        }
    }
}

fn matrix(cell: &Cell, looks: &Looks) -> Markup {
    let Some(config) = cell.config() else { return html! {} };
    let names = &config.data.label_names;
    let count = |label: usize, class: usize| -> u64 {
        let reports = cell.finished().filter_map(|run| run.report.as_ref());
        reports.map(|report| report.confusion.count(label, class)).sum()
    };
    let recipe = &cell.key.recipe;
    html! {
        table.confusion {
            caption {
                span.swatch style=(format!("background:{}", looks.get(&cell.key).colour.css())) {}
                (both(&method_words(&cell.key.label))) @if !recipe.is_empty() { ", " (recipe) }
            }
            thead { tr { td {} @for name in names { th.number scope="col" { (name) } } } }
            tbody { @for (label, name) in names.iter().enumerate() {
                @let total: u64 = (0..names.len()).map(|class| count(label, class)).sum();
                tr {
                    th scope="row" { (name) }
                    @for class in 0..names.len() {
                        @let share = count(label, class) as f64 / total.max(1) as f64;
                        td.number style=(format!("--share:{:.0}%", share * 55.0)) {
                            (format!("{share:.3}"))
                            small { (with_thousands(count(label, class) as usize)) }
                        }
                    }
                }
            } }
        }
    }
}

fn disagreements(report: &Report<'_>) -> Markup {
    let reviews = disagreement::disagreements(report.study);
    let cells = disagreement::compared(report.study);
    let Some(config) = cells.first().and_then(|cell| cell.config()) else { return html! {} };
    if reviews.is_empty() {
        return html! {};
    }
    let names = &config.data.label_names;
    html! {
        section #disagreements {
            h2 #disagreements-title {
                (both(&words("Where the methods disagree", "방법들이 엇갈리는 리뷰")))
            }
            figure.table {
                (scroll("disagreements-title", &html! { table.reviews {
                    thead { tr {
                        th scope="col" { (both(&words("review", "리뷰"))) }
                        th scope="col" { (both(&words("class", "클래스"))) }
                        @for cell in &cells {
                            th.number scope="col" { (both(&method_words(&cell.key.label))) }
                        }
                    } }
                    tbody { @for review in &reviews { tr {
                        td.text { @match report.texts.get(&review.id) {
                            Some(text) => span lang="ko" { (text) },
                            None => span.id { "id " (review.id) },
                        } }
                        td { (names[review.label]) }
                        @for said in &review.methods {
                            @let (right, wrong) = (said.is_right(), said.is_wrong());
                            td.number.holds[right].reversed[wrong].undecided[!right && !wrong] {
                                @match said.sure {
                                    Some(sure) => (format!("{sure:.2}")),
                                    None => (format!("{}/{}", said.right, said.runs)),
                                }
                                @let (mark, meaning) = match (right, wrong) {
                                    (true, _) => ("✓", words("right", "정답")),
                                    (_, true) => ("✗", words("wrong", "오답")),
                                    _ => (HALF, words("half of the seeds right", "시드의 절반만 정답")),
                                };
                                span.mark aria-hidden="true" { (mark) }
                                span.said { (both(&meaning)) }
                            }
                        }
                    } } }
                } }))
                figcaption { (both(&disagreements_caption(report, &reviews, cells[0]))) }
            }
        }
    }
}

/// The mark of a method of whose seeds half are right.
const HALF: &str = "½";

fn disagreements_caption(report: &Report<'_>, reviews: &[Disagreement], cell: &Cell) -> Words {
    let on = crate::words::reviews(cell.key.train_size);
    let of = match cell.key.recipe.as_str() {
        "" => words("Trained", ""),
        recipe => words(format!("Recipe {recipe}, trained"), format!("{recipe} 학습 설정, ")),
    };
    let absent = if report.texts.is_empty() {
        words(
            " If the test file is on this machine and has ids, the texts are shown, too.",
            " 테스트 파일이 이 컴퓨터에 있고 id 열이 있으면 리뷰 본문도 표시됩니다.",
        )
    } else {
        words("", "")
    };
    let two = cell.config().is_some_and(|config| config.data.labels.len() == 2);
    let shown = if two {
        words(
            "The probability that each method gives the true class, mean over its seeds, and whether most \
             seeds are right. These are the reviews on which the methods' predictions are furthest apart.",
            "각 방법이 정답 클래스에 부여한 확률의 시드 평균과, 과반의 시드가 맞혔는지를 표시했습니다. 방법 간 예측이 가장 \
             크게 엇갈린 리뷰입니다.",
        )
    } else {
        words(
            "How many of each method's seeds give the true class, and whether most do. These are the \
             reviews on which the methods differ most in that.",
            "각 방법의 시드 중 몇 개가 정답 클래스를 맞혔는지와, 과반이 맞혔는지를 표시했습니다. 맞힌 비율이 방법 간에 가장 \
             크게 엇갈린 리뷰입니다.",
        )
    };
    let halves = reviews.iter().flat_map(|review| &review.methods);
    let half = match halves.filter(|said| !said.is_right() && !said.is_wrong()).count() {
        0 => words("", ""),
        _ => words(
            format!(" {HALF}: half of the seeds are right."),
            format!(" {HALF}: 시드의 절반만 맞혔습니다."),
        ),
    };
    words(
        format!("{}{} {} on {}.{}", shown.en, half.en, of.en, on.en, absent.en),
        format!("{}{} {}{}.{}", shown.ko, half.ko, of.ko, on.ko, absent.ko),
    )
}

fn recipe(name: &str) -> &str {
    if name.is_empty() { "–" } else { name }
}

/// The program that made a run: its version and, where that is known, the commits that worked on it.
fn program(record: &RunRecord) -> String {
    let last = record.provenance.as_ref().and_then(Provenance::program);
    let mut commits = Stretch::programs(&record.stretches);
    if commits.is_empty() {
        commits.extend(last.as_deref());
    }
    let commits: Vec<String> = commits.into_iter().map(short_commit).collect();
    match commits.is_empty() {
        true => record.version.clone(),
        false => format!("{} ({})", record.version, commits.join(", ")),
    }
}

/// A commit as `git log --oneline` shows it; `-dirty` stays behind it.
fn short_commit(commit: &str) -> String {
    match commit.split_once('-') {
        Some((hash, rest)) => format!("{}-{rest}", hash.chars().take(7).collect::<String>()),
        None => commit.chars().take(7).collect(),
    }
}

/// Configurations, devices, versions, seeds and times.
fn made(study: &Study) -> Markup {
    let runs = study.runs();
    let records: Vec<&RunRecord> = runs.iter().map(|run| &run.record).collect();
    let distinct = |value: fn(&RunRecord) -> String| -> String {
        let values: BTreeSet<String> = records.iter().map(|record| value(record)).collect();
        values.into_iter().collect::<Vec<_>>().join("; ")
    };
    let total: f64 = records.iter().map(|record| record.total_seconds).sum();
    let seeded = records.iter().filter(|record| !record.config.method.is_baseline());
    let seeds: BTreeSet<u64> = seeded.map(|record| record.config.seed).collect();
    let seeds: Vec<String> = seeds.iter().map(u64::to_string).collect();
    let hours = format!("{:.1}", total / 3600.0);
    let facts: [(Words, Words); 8] = [
        (words("runs", "실험 수"), records.len().to_string().into()),
        (words("seeds", "시드"), seeds.join(", ").into()),
        (words("device", "장치"), distinct(|record| record.device.clone()).into()),
        (words("threads", "스레드 수"), distinct(|record| record.threads.to_string()).into()),
        (words("program", "프로그램"), distinct(program).into()),
        (
            words("time of all runs", "모든 실험의 시간"),
            words(format!("{hours} h"), format!("{hours}시간")),
        ),
        (
            words("training file, sha256", "학습 파일 sha256"),
            distinct(|record| short(&record.config.data.train.sha256)).into(),
        ),
        (
            words("test file, sha256", "테스트 파일 sha256"),
            distinct(|record| short(&record.config.data.test.sha256)).into(),
        ),
    ];
    let mut table = BilingualTable::new(
        [
            words("run", "실험"),
            words("recipe", "학습 설정"),
            words("epochs", "에폭 수"),
            words("learning rate", "학습률"),
            words("batch", "배치\n크기"),
            words("optimiser", "옵티마이저"),
            words("tested\nepoch", "테스트한\n에폭"),
            words("validation\naccuracy", "검증\n정확도"),
            words("whole run", "실험\n전체 시간"),
        ],
        2,
    );
    for record in &records {
        let training = &record.config.training;
        let results = record.results.as_ref();
        let epoch = results.and_then(|results| {
            results.epochs.iter().find(|epoch| epoch.epoch == results.tested_epoch)
        });
        let dash = || "–".to_owned();
        let trained = !record.config.method.is_baseline();
        let of_training = |text: String| if trained { text } else { dash() };
        let tested = results.map_or_else(dash, |results| results.tested_epoch.to_string());
        table.push(
            [
                record.run_id.clone(),
                recipe(&record.config.recipe).to_owned(),
                of_training(training.num_train_epochs.to_string()),
                of_training(format!("{:e}", training.learning_rate)),
                of_training(training.train_batch_size.to_string()),
                of_training(training.optimizer.name().to_owned()),
                of_training(tested),
                epoch
                    .and_then(|epoch| epoch.validation_accuracy)
                    .map_or_else(dash, |accuracy| format!("{accuracy:.4}")),
                minutes_and_seconds(record.total_seconds),
            ]
            .map(Words::from),
        );
    }
    html! {
        section #made {
            (heading("How it was made", "실험 환경과 방법"))
            p { (both(&words(
                "Each run is one process with one resolved configuration and seed. Each run predicted the \
                 test set once, after training. Every test figure here is computed from those \
                 predictions.",
                "실험 하나는 모든 설정과 시드를 고정해 실행한 프로세스 하나입니다. 테스트 데이터는 학습이 끝난 뒤 실험마다 한 번만 \
                 예측했고, 테스트 수치는 모두 그 예측에서 계산했습니다.",
            ))) }
            dl.facts { @for (name, value) in &facts { dt { (both(name)) } dd { (both(value)) } } }
            details {
                summary { span #runs-title { (both(&words("Every run", "모든 실험"))) } }
                (html_table(&table, "runs-title"))
            }
        }
    }
}

fn short(sha256: &str) -> String {
    sha256.get(..12).unwrap_or(sha256).to_owned()
}

#[cfg(test)]
mod tests {
    use nsmc_experiment::ScratchModel;

    use super::*;
    use crate::fabricated;

    /// The study of vanilla on NSMC or the sample, with pre-training and, if so wanted, without.
    fn of_vanilla(dataset: &str, scratch: bool) -> Study {
        let folder = tempfile::tempdir().unwrap();
        let mut config = fabricated::config("pre-trained", 1000, 0);
        config.data.dataset = dataset.into();
        fabricated::run(folder.path(), &config, 0.88, 1.0);
        fabricated::run(folder.path(), &fabricated::tfidf(config.clone()), 0.87, 1.0);
        if scratch {
            config.recipe = "random".into();
            config.model = ModelConfig::Scratch(ScratchModel {
                vocab_size: 8000,
                hidden_size: 256,
                num_hidden_layers: 4,
                num_attention_heads: 4,
                intermediate_size: 1024,
                max_position_embeddings: 128,
                hidden_dropout_prob: 0.1,
                attention_probs_dropout_prob: 0.1,
            });
            fabricated::run(folder.path(), &config, 0.86, 1.0);
        }
        Study::read_runs(folder.path(), None).unwrap()
    }

    #[test]
    fn a_report_asks_what_its_runs_can_answer() {
        let both = of_vanilla("nsmc", true);
        assert!(lead(&both).en.starts_with("How much does pre-training add"));
        assert_eq!(
            title(&both),
            words(
                "Full fine-tuning with and without pre-training on Korean movie reviews",
                "사전학습 유무에 따른 한국어 영화 리뷰 전체 미세조정 비교"
            )
        );
        let sentences = crate::words::verdict(&both, &Verdict::new(&both));
        let [no_order, orders @ ..] = sentences.as_slice() else { panic!("{sentences:?}") };
        assert!(no_order.en.ends_with("so the paper's order cannot be checked."), "{no_order:?}");
        assert!(no_order.ko.ends_with("재현되는지 판단할 수 없습니다."), "{no_order:?}");
        for (recipe, order) in ["pre-trained", "random"].iter().zip(orders) {
            assert!(order.en.starts_with(&format!("With recipe {recipe} (")), "{order:?}");
        }
        assert_eq!(orders.len(), 2);
        let one = of_vanilla("sample", false);
        assert!(lead(&one).en.starts_with("A paper from Kookmin University"));
        assert_eq!(
            title(&one),
            words(
                "Full fine-tuning, AdapterFusion and LoRA on synthetic sample reviews",
                "합성 예제 리뷰에서 비교한 전체 미세조정, AdapterFusion, LoRA"
            )
        );
        assert!(lead(&of_vanilla("mine", true)).en.starts_with("Which way to fine-tune"));
    }

    #[test]
    fn a_program_is_its_version_and_the_commits_that_worked_on_the_run() {
        let folder = tempfile::tempdir().unwrap();
        fabricated::run(folder.path(), &fabricated::config("paper", 1000, 0), 0.8, 1.0);
        let study = Study::read_runs(folder.path(), None).unwrap();
        let mut record = study.runs()[0].record.clone();
        let stretches = |programs: &[&str]| -> Vec<Stretch> {
            let stretch = |program: &&str| Stretch {
                program: Some((*program).to_owned()),
                ..Stretch::default()
            };
            programs.iter().map(stretch).collect()
        };
        let (first, second) = ("b139567".repeat(6), format!("{}-dirty", "42933ac".repeat(6)));
        record.version = "0.1.0".into();
        record.provenance = None;
        record.stretches = stretches(&[]);
        assert_eq!(program(&record), "0.1.0");
        record.provenance =
            Some(Provenance { commit: Some(first.clone()), ..Provenance::default() });
        assert_eq!(program(&record), "0.1.0 (b139567)");
        record.stretches = stretches(&[&second, &first]);
        assert_eq!(program(&record), "0.1.0 (42933ac-dirty, b139567)");
        record.stretches = stretches(&["가나다라마바사아자"]);
        assert_eq!(program(&record), "0.1.0 (가나다라마바사)");
    }
}
