//! A report of fabricated runs, looked at in a browser.

#![allow(clippy::unwrap_used, reason = "a test that cannot write its data fails")]

#[path = "../../eval/tests/fabricated/mod.rs"]
mod fabricated;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nsmc_eval::study::{Plan, PlannedRun, Study, collect};
use nsmc_experiment::{ExperimentConfig, MethodKind};
use nsmc_report::Report;

/// The study of the fabricated grid and of further runs, by way of collected results.
fn study(folder: &Path, further: &[ExperimentConfig]) -> Study {
    let (runs, results) = (folder.join("runs"), folder.join("results"));
    let mut configs = fabricated::grid(&runs);
    for config in further {
        fabricated::run(&runs, config, 0.85, 1.0);
        configs.push(config.clone());
    }
    let runs_of_plan = configs.iter().map(PlannedRun::of).collect();
    let plan = Plan { profile: "fabricated".into(), paper_scale: Some(100), runs: runs_of_plan };
    collect(&plan, &runs, &results).unwrap();
    Study::read_results(&results).unwrap()
}

/// The same as if of the paper's data, so that the paper's figures stand beside it.
fn of_the_papers_data(mut study: Study) -> Study {
    for run in study.cells.iter_mut().flat_map(|cell| &mut cell.runs) {
        Arc::make_mut(run).record.config.data.dataset = "nsmc".into();
    }
    study
}

fn report() -> (Study, BTreeMap<String, String>) {
    report_with(&[])
}

fn report_with(further: &[ExperimentConfig]) -> (Study, BTreeMap<String, String>) {
    let folder = tempfile::tempdir().unwrap();
    let study = of_the_papers_data(study(folder.path(), further));
    let (_, ids) = Report::quoted(&study).unwrap();
    let text = "아주 긴 리뷰 <b>가짜</b> & \"따옴표\" 끝없이이어지는말끝없이이어지는말끝없이이어지는말끝없이이어지는말";
    (study, ids.into_iter().map(|id| (id, text.to_owned())).collect())
}

#[test]
fn the_page_names_no_other_place_and_stays_small() {
    let (study, texts) = report();
    let html = Report { study: &study, texts }.html();
    assert!(html.len() < 3 << 20, "{} bytes", html.len());
    for reference in ["http://", "https://", "//cdn", "@import", "url(", "<script", "src="] {
        // The namespace of SVG is a name, not a place.
        let rest = html.replace("http://www.w3.org/2000/svg", "");
        assert!(!rest.contains(reference), "{reference}");
    }
    assert!(html.contains("&lt;b&gt;가짜&lt;/b&gt; &amp;"), "texts of reviews are text");
    assert!(html.contains("out of memory, as the test says"), "failed runs are shown");
    assert!(html.contains("adamw_hf") && !html.contains("Adamw"), "an optimiser as a key has it");
    let folder = tempfile::tempdir().unwrap();
    let own = self::study(folder.path(), &[]);
    let html = Report { study: &own, texts: BTreeMap::new() }.html().replace("&#39;", "'");
    assert!(html.contains("LoRA on fabricated reviews"), "one's own data are called by their name");
    for beside in
        ["The paper's figures are those", "Results beside the paper", "논문 결과와의 비교"]
    {
        assert!(!html.contains(beside), "the paper's figures are of other data: {beside}");
    }
}

#[test]
fn the_verdict_says_what_the_fabricated_numbers_say() {
    let (study, texts) = report();
    let html = Report { study: &study, texts }.html();
    for sentence in [
        "With the paper's recipe, the paper's order holds at every training size. Vanilla beats \
         AdapterFusion",
        "With the tuned recipe, the data do not decide the whole of the paper's order",
        "This reconstruction of the paper's LoRA r=64 collapses: it lies 23.",
        "This setting, changed alone, closes more than half of that gap: alpha (1 → 128; accuracy changes \
         by ",
        "closes less than half: what trains besides LoRA ([] → [head]; accuracy changes by ",
        "LoRA r=64 does not collapse (it lies no more than 5 points below vanilla); vanilla less LoRA: ",
        "The collapse of this reconstruction's LoRA is therefore a matter of the recipe, not of the \
         method: on 1,000 reviews",
        "논문의 학습 설정(paper)에서는 모든 학습 데이터 크기에서 논문이 보고한 성능 순위가 재현됩니다. 전체 \
         미세조정(Vanilla)이 AdapterFusion",
        "논문의 학습 설정을 추정해 재구성한 LoRA r=64의 성능은 크게 무너집니다. 전체 미세조정보다 정확도가 23.",
        "LoRA r=64의 성능은 무너지지 않습니다(전체 미세조정보다 5%p 넘게 낮지 않음). 전체 미세조정과의 차이(전체 미세조정 − LoRA)는 ",
        "다음 설정 항목은 하나만 바꾸어도 이 격차를 절반 넘게 메웁니다: alpha(1 → 128; 정확도 변화 ",
        "따라서 재구성한 LoRA의 성능이 무너지는 원인은 방법이 아니라 학습 설정에 있습니다",
        "a reconstruction, not the authors' configuration.",
        "기본값을 참고해 채운 추정이며, 저자들의 설정이 아닙니다.",
        "Runs stuck at chance, which count like all others: 1. Failed runs: 1.",
    ] {
        let html = html.replace("&#39;", "'").replace('\u{a0}', " ");
        assert!(html.contains(sentence), "{sentence}");
    }
    // The legend alone says how intervals are made.
    for (interval, how_often) in [
        ("the 95 % interval of a bootstrap over reviews, with Student's t for the seeds", 1),
        ("95% 신뢰구간으로, 리뷰는 부트스트랩으로, 시드는 t 분포로 반영했습니다.", 1),
        ("over seeds and reviews", 0),
        ("시드와 리뷰에 대한", 0),
    ] {
        // Tables have notes of their own.
        let prose = html.replace("&#39;", "'");
        let prose = prose.split("id=\"tables\"").next().unwrap();
        assert_eq!(prose.matches(interval).count(), how_often, "{interval}");
    }
}

/// The verdict's sentences, English and Korean.
fn verdict(html: &str) -> Vec<(String, String)> {
    let part = |paragraph: &str, class: &str| {
        let start = paragraph.split(&format!("<span class=\"{class}\" lang=\"{class}\">")).nth(1);
        start.unwrap().split("</span>").next().unwrap().replace("&gt;", ">")
    };
    let paragraphs = html.split("<p class=\"verdict\">").skip(1);
    let plain = |text: String| text.replace('\u{a0}', " ").replace('\u{2060}', "");
    let both = |paragraph: &str| (plain(part(paragraph, "en")), plain(part(paragraph, "ko")));
    paragraphs.map(both).collect()
}

#[test]
fn a_sentence_of_the_verdict_has_the_interval_of_each_difference_it_speaks_of() {
    let (study, texts) = report();
    let html = Report { study: &study, texts }.html();
    let sentences = verdict(&html);
    assert_eq!(sentences.len(), 6, "{sentences:?}");
    for (en, ko) in &sentences {
        assert!(!en.contains("%p") && !ko.contains(" %"), "{en}\n{ko}");
        let intervals = |text: &str, unit: &str| -> Vec<String> {
            text.split(&format!("{unit} ["))
                .skip(1)
                .map(|rest| rest.split(']').next().unwrap().to_owned())
                .collect()
        };
        let found = intervals(en, " points");
        assert!(!found.is_empty(), "{en}");
        assert_eq!(found, intervals(ko, "%p"));
        for ends in found {
            let ends: Vec<f64> =
                ends.split(", ").map(|end| end.replace('−', "-").parse().unwrap()).collect();
            assert!(ends.len() == 2 && ends[0] < ends[1], "{ends:?}");
        }
        for placeholder in ["(는)", "(가)", "(를)", "(와)", "(과)"] {
            assert!(!ko.contains(placeholder), "{ko}");
        }
    }
    // Each size's difference is the one of the study's contrast.
    let contrast = study.contrasts.iter().find(|contrast| {
        let [first, second] = [contrast.first, contrast.second].map(|cell| &study.cells[cell].key);
        contrast.is_of_methods()
            && (first.recipe.as_str(), first.method) == ("paper", MethodKind::Vanilla)
            && second.method == MethodKind::Lora
    });
    let bootstrap = contrast.unwrap().pair.as_ref().unwrap().bootstrap;
    let expected = format!(
        "it lies {:.1} points [{:.1}, {:.1}] (1,000 reviews) and ",
        bootstrap.difference * 100.0,
        bootstrap.interval.low * 100.0,
        bootstrap.interval.high * 100.0
    );
    assert!(sentences[1].0.contains(&expected), "{expected} is not in {}", sentences[1].0);
    let undecided = &sentences[3].0;
    assert!(undecided.contains("The data do not decide whether Vanilla beats "), "{undecided}");
}

#[test]
fn a_reversed_claim_and_one_without_runs_are_said_to_be_such() {
    let folder = tempfile::tempdir().unwrap();
    let runs = folder.path().join("runs");
    let paper = |size: usize| fabricated::config("paper", size, 0);
    let lora = |size: usize| fabricated::lora(paper(size), 16, 1.0);
    let mut planned = Vec::new();
    for (config, accuracy) in [
        (paper(1000), Some(0.80)),
        (fabricated::fusion(paper(1000)), Some(0.86)),
        (lora(1000), Some(0.62)),
        (paper(500), Some(0.80)),
        (fabricated::fusion(paper(500)), Some(0.86)),
        (lora(500), None),
    ] {
        planned.push(PlannedRun::of(&config));
        if let Some(accuracy) = accuracy {
            fabricated::run(&runs, &config, accuracy, 1.0);
        }
    }
    let plan = Plan { profile: "fabricated".into(), paper_scale: None, runs: planned };
    let study = of_the_papers_data(Study::read_runs(&runs, Some(plan)).unwrap());
    let html = Report { study: &study, texts: BTreeMap::new() }.html();
    assert!(!html.contains("a reconstruction, not"), "nothing here is compared with the paper");
    let sentences = verdict(&html);
    let (en, ko) = &sentences[0];
    for (text, sentence) in [
        (
            en,
            "the paper's order does not hold: of 4 pairwise claims, 1 holds, 2 are reversed and 1 cannot",
        ),
        (en, "AdapterFusion, Fuse(ko, nsmc) beats Vanilla by "),
        (en, "AdapterFusion, Fuse(ko, nsmc) and LoRA r=16 have no runs to compare on 500 reviews."),
        (ko, "AdapterFusion, Fuse(ko, nsmc)가 전체 미세조정(Vanilla)보다 "),
        (
            ko,
            "학습 데이터 500건에서 AdapterFusion, Fuse(ko, nsmc)와 LoRA r=16을 비교할 실험이 없습니다.",
        ),
    ] {
        assert!(text.replace("&#39;", "'").contains(sentence), "{sentence} is not in {text}");
    }
    assert!(!en.contains('−'), "the one ahead is ahead by a positive difference: {en}");
}

#[test]
fn a_baseline_is_plotted_beside_each_recipe_and_held_against_its_best_method() {
    let folder = tempfile::tempdir().unwrap();
    let runs = folder.path().join("runs");
    let configs = fabricated::grid(&runs);
    let mut planned: Vec<PlannedRun> = configs.iter().map(PlannedRun::of).collect();
    for size in [1000, 500] {
        let config = fabricated::tfidf(fabricated::config("", size, 0));
        fabricated::run(&runs, &config, 0.84, 1.0);
        planned.push(PlannedRun::of(&config));
    }
    let plan = Plan { profile: "fabricated".into(), paper_scale: Some(100), runs: planned };
    let with = of_the_papers_data(Study::read_runs(&runs, Some(plan)).unwrap());
    let label = "Baseline: TF-IDF, logistic regression";
    let plots = Report { study: &with, texts: BTreeMap::new() }.plots();
    let shown =
        |name: &str| plots.iter().find(|plot| plot.name == name).unwrap().svg.contains(label);
    for name in ["size-1", "size-2", "time-1", "time-2"] {
        assert!(shown(name), "{name}");
    }
    let names: Vec<&str> = plots.iter().map(|plot| plot.name.as_str()).collect();
    assert!(!names.contains(&"size-3"), "a recipe of its own: {names:?}");
    let (without, _) = report();
    let of = |study: &Study| verdict(&Report { study, texts: BTreeMap::new() }.html());
    let (beside, others): (Vec<_>, Vec<_>) =
        of(&with).into_iter().partition(|(en, _)| en.contains(" best baseline, TF-IDF"));
    assert_eq!(beside.len(), 2, "one for the largest size of each recipe: {beside:?}");
    assert_eq!(others, of(&without));
}

#[test]
fn every_plot_has_marks_for_its_data() {
    let (study, texts) = report();
    let plots = Report { study: &study, texts }.plots();
    let kinds = ["differences", "size", "time", "changes", "curves", "calibration", "attention"];
    for kind in kinds {
        assert!(plots.iter().any(|plot| plot.name.starts_with(kind)), "{kind}");
    }
    let korean = plots.iter().filter(|plot| plot.name.ends_with(".ko")).count();
    assert_eq!(2 * korean, plots.len(), "each plot in both languages");
    for plot in &plots {
        let has = |text: &str| plot.svg.contains(text);
        if plot.name.starts_with("size") {
            assert_eq!(
                (has("정확도"), has("accuracy")),
                (plot.name.ends_with(".ko"), !plot.name.ends_with(".ko"))
            );
        }
        let marks = plot.svg.matches("<circle").count()
            + plot.svg.matches("<polyline").count()
            + plot.svg.matches("<polygon").count()
            + plot.svg.matches("<rect").count();
        assert!(marks > 2, "{}: {marks} marks", plot.name);
        assert!(plot.svg.contains("<text"), "{}: text is text", plot.name);
        assert!(plot.svg.contains("var(--"), "{}: colours follow the scheme", plot.name);
        assert!(!plot.svg.contains("NaN"), "{}", plot.name);
    }
}

/// The values of an attribute, in the order of the page.
fn values<'a>(html: &'a str, attribute: &str) -> Vec<&'a str> {
    let start = format!(" {attribute}=\"");
    let parts = html.split(&start).skip(1);
    parts.map(|rest| rest.split('"').next().unwrap()).collect()
}

#[test]
fn whatever_can_be_focused_or_looked_at_has_a_name_of_its_own() {
    let (study, texts) = report();
    let html = Report { study: &study, texts }.html();
    let ids = values(&html, "id");
    for (index, id) in ids.iter().enumerate() {
        assert!(!ids[..index].contains(id), "two elements are called {id}");
    }
    for names in values(&html, "aria-labelledby") {
        let missing = names.split(' ').find(|name| !ids.contains(name));
        assert_eq!(missing, None, "in {names}");
    }
    let tags = |start: &str| -> Vec<String> {
        let tags = html.split(start).skip(1).map(|rest| rest.split('>').next().unwrap());
        tags.map(|tag| format!(" {tag}")).collect()
    };
    let (plots, regions) = (tags("<svg "), tags("<div class=\"scroll\""));
    assert!(plots.len() >= 12 && regions.len() >= 7, "{} {}", plots.len(), regions.len());
    for (tags, role) in [(plots, "img"), (regions, "region")] {
        let mut names: Vec<&str> = Vec::new();
        for tag in &tags {
            assert_eq!(values(tag, "role"), [role], "{tag}");
            let [name] = values(tag, "aria-labelledby")[..] else { panic!("{tag}") };
            assert!(!names.contains(&name), "two are called {name}");
            names.push(name);
        }
    }
    let (cells, scopes) = (tags("<th "), values(&html, "scope"));
    assert!(!html.contains("<th>"), "a header cell without scope");
    assert!(cells.iter().all(|cell| values(cell, "scope").len() == 1), "{cells:?}");
    let rows = scopes.iter().filter(|scope| **scope == "row").count();
    assert!(rows > 0 && rows < scopes.len() && scopes.len() == cells.len());
}

#[test]
fn of_three_classes_a_wrong_answer_tells_no_probability_of_the_true_one() {
    let folder = tempfile::tempdir().unwrap();
    let three = |seed: u64| {
        let mut config = fabricated::config("paper", 1000, seed);
        config.data.labels.push("2".into());
        config.data.label_names = ["bad", "fair", "good"].map(str::to_owned).into();
        config
    };
    for seed in 0..3 {
        for (config, vanilla) in
            [(three(seed), true), (fabricated::lora(three(seed), 16, 1.0), false)]
        {
            fabricated::run(folder.path(), &config, 0.8, 1.0);
            let mut predictions =
                String::from("id\tlabel\tin_training\tlogit_0\tlogit_1\tlogit_2\n");
            for review in 0..100_u64 {
                // 7: two of three runs of one method are right and one of the other, all sure. 31: all
                // of one and none of the other, all unsure.
                let (right, sure) = match review {
                    7 => ((seed < 2) == vanilla, 5.0),
                    31 => (vanilla, 0.1),
                    _ => (true, 1.0),
                };
                let label = review % 3;
                let class = if right { label } else { (label + 1) % 3 };
                let logit = |of: u64| if of == class { sure } else { 0.0 };
                let logits = [logit(0), logit(1), logit(2)];
                writeln!(
                    predictions,
                    "{}\t{label}\t0\t{}\t{}\t{}",
                    9000 + review,
                    logits[0],
                    logits[1],
                    logits[2]
                )
                .unwrap();
            }
            fabricated::predicts(folder.path(), &config, &predictions);
        }
    }
    // The first run is of other data, on which there is nothing to compare.
    let mut other = fabricated::lora(fabricated::config("paper", 100, 0), 16, 1.0);
    other.data.dataset = "another".into();
    fabricated::run(folder.path(), &other, 0.8, 1.0);
    let study = Study::read_runs(folder.path(), None).unwrap();
    assert_eq!(study.runs()[0].record.config.data.dataset, "another");
    let (data, ids) = Report::quoted(&study).unwrap();
    assert_eq!(ids, ["9031", "9007"], "those furthest apart come first");
    assert_eq!(data.dataset, "fabricated reviews");
    let html = Report { study: &study, texts: BTreeMap::new() }.html();
    let section = html.split("id=\"disagreements\"").nth(1).unwrap();
    let section = section.split("</section>").next().unwrap();
    let told: Vec<(&str, bool)> = section
        .split("<td class=\"number ")
        .skip(1)
        .map(|cell| (cell.split(['>', '<']).nth(1).unwrap(), cell.starts_with("holds")))
        .collect();
    let expected = [("3/3", true), ("0/3", false), ("2/3", true), ("1/3", false)];
    assert_eq!(told, expected);
    assert!(section.contains("How many of each method"), "{section}");
    assert!(!section.contains("Probability") && !section.contains("확률"), "{section}");
}

#[test]
fn a_method_of_whose_seeds_half_are_right_is_called_neither_right_nor_wrong() {
    let folder = tempfile::tempdir().unwrap();
    for seed in [0, 1] {
        let vanilla = fabricated::config("paper", 1000, seed);
        let fusion = fabricated::fusion(vanilla.clone());
        let lora = fabricated::lora(vanilla.clone(), 16, 1.0);
        for (config, right_of_7) in [(&vanilla, true), (&fusion, seed == 0), (&lora, false)] {
            fabricated::run(folder.path(), config, 0.8, 1.0);
            let mut predictions = String::from("id\tlabel\tin_training\tlogit_0\tlogit_1\n");
            for review in 0..50 {
                let right = review != 7 || right_of_7;
                let (label, sign) = (review % 2, if right { 1 } else { -1 });
                let logit = sign * (2 * label - 1);
                writeln!(predictions, "{review}\t{label}\t0\t0\t{logit}").unwrap();
            }
            fabricated::predicts(folder.path(), config, &predictions);
        }
    }
    let study = Study::read_runs(folder.path(), None).unwrap();
    let html = Report { study: &study, texts: BTreeMap::new() }.html();
    let section = html.split("id=\"disagreements\"").nth(1).unwrap();
    let section = section.split("</section>").next().unwrap();
    let cells: Vec<(&str, &str)> = section
        .split("<td class=\"number ")
        .skip(1)
        .map(|cell| (cell.split('"').next().unwrap(), cell.split("true\">").nth(1).unwrap()))
        .map(|(class, mark)| (class, mark.split('<').next().unwrap()))
        .collect();
    assert_eq!(cells, [("holds", "✓"), ("undecided", "½"), ("reversed", "✗")], "{section}");
    for words in
        ["half of the seeds right", "시드의 절반만 정답", "½: half of the seeds are right."]
    {
        assert!(section.contains(words), "{words}");
    }
}

/// What the page looks like from within a browser, at some width.
const MEASURE: &str = r##"
const found = { errors: [] };
const measure = (frame, width) => {
  const page = frame.contentDocument, root = page.documentElement;
  page.querySelectorAll("details").forEach((details) => details.open = true);
  // The blank at which a line is broken hangs over its edge, and counts for an inline element.
  const wide = [...page.querySelectorAll("body *")].filter((element) =>
    !element.closest(".scroll, svg") && frame.contentWindow.getComputedStyle(element).display !== "inline" &&
    element.getBoundingClientRect().right > width + 1);
  const shown = (selector) => [...page.querySelectorAll(selector)]
    .some((element) => frame.contentWindow.getComputedStyle(element).display !== "none");
  const marks = [...page.querySelectorAll("svg.plot")].map((svg) =>
    [...svg.querySelectorAll("circle, polyline, polygon, rect")]
      .filter((mark) => mark.getBoundingClientRect().width + mark.getBoundingClientRect().height > 0)
      .length);
  // Of a text on two lines in one language alone, the second is empty in the other.
  const labels = () => [...page.querySelectorAll("svg.plot text")].filter((label) =>
    label.textContent.trim() && frame.contentWindow.getComputedStyle(label).display !== "none");
  const text = Math.min(...labels().map((label) => label.getBoundingClientRect().height));
  const cut = () => labels().filter((label) => {
    const box = label.getBoundingClientRect(), plot = label.ownerSVGElement.getBoundingClientRect();
    return box.left < plot.left - 1 || box.right > plot.right + 1 || box.bottom > plot.bottom + 1;
  }).map((label) => label.textContent);
  // Elements that hold a sentence in no Korean; texts of reviews and names are no sentences.
  const untranslated = () => [...page.querySelectorAll("h1, h2, h3, p, li, th, td, dt, figcaption, summary")]
    .map((element) => element.innerText)
    .filter((text) => !/[가-힣]/.test(text) && /[a-z]{2,} [a-z]{2,}/.test(text));
  const names = () => [...page.querySelectorAll("svg.plot, .scroll")]
    .map((element) => element.computedName);
  // Ours is seen without scrolling, and the method stays when one scrolls to the paper's.
  const results = page.querySelector("#results .scroll");
  const right = (element) => element.getBoundingClientRect().right;
  const accuracy = right(results.querySelector("tbody td:nth-child(4)")) <= right(results);
  results.scrollLeft = 10000;
  const method = results.querySelector("tbody td:nth-child(2)").getBoundingClientRect().left;
  const state = { accuracy, method: method - results.getBoundingClientRect().left, scrolled: results.scrollLeft,
    names: names(), overflow: root.scrollWidth - width, wide: wide.map((element) => element.outerHTML.slice(0, 80)),
    plots: marks.length, fewest_marks: Math.min(...marks), smallest_text: text, cut: cut(),
    english: shown(".verdict .en"), korean: shown(".verdict .ko") };
  page.querySelector("#korean").click();
  state.after = { english: shown(".verdict .en"), korean: shown(".verdict .ko"), cut: cut(),
    names: names(), untranslated: untranslated(), overflow: root.scrollWidth - width };
  state.resources = frame.contentWindow.performance.getEntriesByType("resource").length;
  return state;
};
addEventListener("error", (event) => found.errors.push(String(event.message)));
addEventListener("load", () => {
  for (const frame of document.querySelectorAll("iframe")) {
    found[frame.width] = measure(frame, Number(frame.width));
  }
  document.querySelector("#found").textContent = JSON.stringify(found);
});
"##;

#[test]
fn a_browser_shows_the_page_without_overflow_requests_or_errors() {
    // A name that is longer than a plot is wide.
    let mut several =
        fabricated::config("paper + alpha + head + rate + batch + decay + bias", 1000, 0);
    several.training.learning_rate = 1e-3;
    let several = fabricated::with_head(fabricated::lora(several, 64, 128.0));
    let (study, texts) = report_with(&[several]);
    let html = Report { study: &study, texts }.html();
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    fs_err::write(folder.join("report.html"), &html).unwrap();
    let Some(browser) = browser() else {
        // Not `println!`, whose words cargo keeps to itself when a test passes.
        std::io::stderr()
            .write_all(
                b"NOT CHECKED in a browser: no chromium, chromium-browser or google-chrome, and no \
                  CHROMIUM. The other tests of this file check the page's text.\n",
            )
            .unwrap();
        return;
    };

    // A frame is as narrow as a telephone, which a window cannot be.
    let source = html.replace('&', "&amp;").replace('"', "&quot;");
    let mut page = String::from("<!doctype html><meta charset=utf-8>");
    for width in [360, 1280] {
        write!(page, "<iframe width=\"{width}\" height=\"900\" style=\"border:0\" srcdoc=\"{source}\"></iframe>")
            .unwrap();
    }
    write!(page, "<pre id=found></pre><script>{MEASURE}</script>").unwrap();
    let path = folder.join("frames.html");
    fs_err::write(&path, page).unwrap();
    let profile = tempfile::tempdir().unwrap();
    let mut command = Command::new(&browser);
    command
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"])
        // It is to look at the page, and at nothing else.
        .args(["--no-first-run", "--disable-background-networking", "--disable-component-update"])
        .args(["--disable-sync", "--disable-extensions", "--disable-dev-shm-usage"])
        // What an element is called to those who do not see it.
        .arg("--enable-blink-features=ComputedAccessibilityInfo")
        .args(["--enable-logging=stderr", "--virtual-time-budget=5000", "--dump-dom"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("file://{}", path.display()));
    let Output { stdout: dom, stderr: log, .. } =
        run(command).unwrap_or_else(|error| panic!("{}: {error}", browser.display()));
    let (dom, log) = (String::from_utf8_lossy(&dom), String::from_utf8_lossy(&log));
    let found = dom.split("<pre id=\"found\">").nth(1).and_then(|rest| rest.split("</pre>").next());
    let found = found.unwrap_or_else(|| panic!("{} showed nothing\n{log}", browser.display()));
    let found = found.replace("&gt;", ">").replace("&lt;", "<").replace("&amp;", "&");
    let found: serde_json::Value =
        serde_json::from_str(&found).unwrap_or_else(|error| panic!("{error}: {found}\n{log}"));
    assert_eq!(found["errors"], serde_json::json!([]));
    // The browser's own pages speak there, too.
    let said = |line: &&str| line.contains("CONSOLE") && !line.contains("source: chrome://");
    assert_eq!(log.lines().find(said), None);
    for width in ["360", "1280"] {
        let state = &found[width];
        assert_eq!(state["overflow"], 0, "at {width}: {state}");
        assert_eq!(state["wide"], serde_json::json!([]), "at {width}");
        assert_eq!(state["resources"], 0, "at {width}: something was fetched");
        assert!(state["plots"].as_u64().unwrap() >= 12, "{state}");
        assert!(state["fewest_marks"].as_u64().unwrap() > 2, "{state}");
        assert_eq!(state["accuracy"], true, "at {width}: {state}");
        let stays = state["scrolled"] == 0 || state["method"].as_f64().unwrap().abs() < 1.0;
        assert!(stays, "at {width}: {state}");
        assert!(state["smallest_text"].as_f64().unwrap() > 9.0, "legible at {width}: {state}");
        assert_eq!((&state["english"], &state["korean"]), (&true.into(), &false.into()));
        let after = &state["after"];
        assert_eq!(
            (&state["cut"], &after["cut"]),
            (&serde_json::json!([]), &serde_json::json!([]))
        );
        for (names, korean) in [(&state["names"], false), (&after["names"], true)] {
            let names: Vec<&str> =
                names.as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
            for (index, name) in names.iter().enumerate() {
                assert!(!names[..index].contains(name), "two are called {name:?}");
                let is_korean = name.contains(|character| ('가'..='힣').contains(&character));
                assert!(name.len() > 3 && is_korean == korean, "{name:?} at {width}");
            }
        }
        assert_eq!(after["untranslated"], serde_json::json!([]), "at {width}");
        assert_eq!(after["overflow"], 0, "at {width} in Korean");
        assert_eq!((&after["english"], &after["korean"]), (&false.into(), &true.into()));
    }
}

/// A headless browser: the environment's `CHROMIUM`, or what is installed and starts.
fn browser() -> Option<PathBuf> {
    let starts = |path: &PathBuf| {
        let mut command = Command::new(path);
        command.arg("--version");
        run(command).is_ok_and(|output| output.status.success())
    };
    if let Some(path) = std::env::var_os("CHROMIUM").map(PathBuf::from) {
        assert!(starts(&path), "CHROMIUM: {} --version fails", path.display());
        return Some(path);
    }
    let folders: Vec<PathBuf> = std::env::split_paths(&std::env::var_os("PATH")?).collect();
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let mut paths = folders.iter().flat_map(|folder| names.map(|name| folder.join(name)));
    // Some distributions put a script there that only says how to install the browser.
    paths.find(|path| path.is_file() && starts(path))
}

/// Runs a browser to its end. One that does not come to it is killed with what it started; what it
/// said is in the error.
fn run(mut command: Command) -> Result<Output, String> {
    // A browser does that in seconds.
    let limit = Duration::from_mins(2);
    // Files, not pipes, which a process of its own that outlives it may hold open.
    let [stdout, stderr] = [(); 2].map(|()| tempfile::NamedTempFile::new().unwrap());
    command.stdin(Stdio::null());
    command.stdout(stdout.reopen().unwrap()).stderr(stderr.reopen().unwrap());
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let mut process = command.spawn().map_err(|error| error.to_string())?;
    let started = Instant::now();
    let status = loop {
        if let Some(status) = process.try_wait().unwrap() {
            break Some(status);
        }
        if started.elapsed() > limit {
            let group = format!("-{}", process.id());
            let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
            let _ = process.kill();
            process.wait().unwrap();
            break None;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let [stdout, stderr] = [stdout, stderr].map(|file| fs_err::read(file.path()).unwrap());
    let Some(status) = status else {
        let said = String::from_utf8_lossy(&stderr);
        return Err(format!("not at its end after {} s, and so killed\n{said}", limit.as_secs()));
    };
    Ok(Output { status, stdout, stderr })
}
