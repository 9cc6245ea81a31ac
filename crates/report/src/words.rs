//! What the numbers say, in English and Korean.

use std::collections::BTreeMap;

use nsmc_eval::compare::{Pair, p_value};
use nsmc_eval::statistics::{BootstrapDifference, Interval};
use nsmc_eval::study::{
    BASE_RECIPE, Cause, Collapse, Contrast, Finding, OrderClaim, RecipeVerdict, Study, StudyRun,
    TUNED_RECIPE, Verdict,
};
use nsmc_eval::{Words, method_words, size_words, with_thousands};
use nsmc_experiment::{ExperimentConfig, ModelConfig, Rows, RunStatus};

use crate::particle::{Particle, with_particle};
use crate::ranking;

pub(crate) fn words(en: impl Into<String>, ko: impl Into<String>) -> Words {
    Words::new(en, ko)
}

/// As at the start of a sentence.
pub(crate) fn capital(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map_or_else(String::new, |first| {
        first.to_uppercase().collect::<String>() + characters.as_str()
    })
}

/// A recipe, within a sentence.
pub(crate) fn recipe(name: &str) -> Words {
    match name {
        "" => words("the one recipe", "이 학습 설정"),
        BASE_RECIPE => words("the paper's recipe", "논문의 학습 설정(paper)"),
        TUNED_RECIPE => words("the tuned recipe", "방법별로 조정한 학습 설정(tuned)"),
        other => words(format!("recipe {other}"), format!("{other} 학습 설정")),
    }
}

/// A key of the configuration.
pub(crate) fn key(name: &str) -> Words {
    match name {
        "method.alpha" => words("alpha", "alpha"),
        "method.trains" => words("what trains besides LoRA", "LoRA 외에 학습되는 부분"),
        "training.learning_rate" => words("learning rate", "학습률"),
        other => {
            let short = other.split_once('.').map_or(other, |(_, key)| key);
            words(short, short)
        }
    }
}

/// A finding as a word in a table.
pub(crate) fn finding(finding: Finding) -> Words {
    match finding {
        Finding::Holds => words("holds", "재현"),
        Finding::Reversed => words("reversed", "반대"),
        Finding::Undecided => words("undecided", "판단 불가"),
        Finding::Missing => words("no runs", "실험 없음"),
    }
}

/// Training reviews, in a sentence.
pub(crate) fn reviews(rows: Rows) -> Words {
    let Words { en, ko } = size_words(rows);
    let ko = if rows == Rows::All {
        "학습 데이터 전체".into()
    } else {
        format!("학습 데이터 {ko}건")
    };
    words(format!("{en} reviews"), ko)
}

/// How to read the verdict's figures.
pub(crate) fn legend(study: &Study) -> Words {
    if study.has_several_seeds() {
        words(
            "Differences are in percentage points of accuracy, means over seeds. In brackets: the \
             95 % interval of a bootstrap over reviews, with Student's t for the seeds.",
            "차이는 정확도의 퍼센트포인트(%p)이며 시드 평균입니다. 대괄호 안은 95% 신뢰구간으로, 리뷰는 \
             부트스트랩으로, 시드는 t 분포로 반영했습니다.",
        )
    } else {
        words(
            "Differences are in percentage points of accuracy. In brackets: the 95 % interval of a \
             bootstrap over reviews. There is one seed: the interval leaves out what other seeds may \
             change.",
            "차이는 정확도의 퍼센트포인트(%p)입니다. 대괄호 안은 리뷰에 대한 부트스트랩 95% 신뢰구간이며, 시드가 하나여서 \
             시드에 따른 변동은 포함하지 않습니다.",
        )
    }
}

/// The verdict, a sentence or two per recipe and question.
pub(crate) fn verdict(study: &Study, verdict: &Verdict) -> Vec<Words> {
    let mut sentences = Vec::new();
    if study.is_of_own_data() {
        for ranking in &study.rankings {
            sentences.push(ranking::order(study, ranking));
            sentences.extend(ranking::leader(study, ranking));
        }
        sentences.extend(verdict.recipes.iter().flat_map(|recipe| pairs(study, recipe)));
        return sentences;
    }
    if verdict.recipes.is_empty() {
        sentences.push(words(
            "No recipe here was run with both vanilla and AdapterFusion or LoRA, so the paper's order \
             cannot be checked.",
            "전체 미세조정(Vanilla)을 AdapterFusion이나 LoRA와 함께 실험한 학습 설정이 없어, 이 실험만으로는 논문의 성능 순위가 \
             재현되는지 판단할 수 없습니다.",
        ));
        sentences.extend(study.rankings.iter().map(|ranking| ranking::order(study, ranking)));
    }
    for recipe in &verdict.recipes {
        sentences.push(order(study, recipe, several_settings(verdict)));
        sentences.extend(collapse(study, recipe));
        sentences.extend(causes(study, recipe));
        // The largest training size is the first.
        let ranking = study.rankings.iter().find(|ranking| {
            (&ranking.setting, &ranking.recipe) == (&recipe.setting, &recipe.recipe)
        });
        let ranking = ranking.filter(|ranking| ranking.baseline.is_some());
        sentences.extend(ranking.and_then(|ranking| ranking::leader(study, ranking)));
    }
    for recipe in verdict.recipes.iter().filter(|recipe| recipe.is_papers()) {
        sentences.extend(survives(study, verdict, recipe));
    }
    sentences
}

fn several_settings(verdict: &Verdict) -> bool {
    verdict.recipes.iter().any(|recipe| recipe.setting != verdict.recipes[0].setting)
}

fn order(study: &Study, verdict: &RecipeVerdict, named: bool) -> Words {
    let name = recipe(&verdict.recipe);
    let here = if named {
        let Words { en, ko } = study.setting(&verdict.setting);
        words(format!(" ({en})"), format!("({ko})"))
    } else {
        words("", "")
    };
    let count =
        |wanted: Finding| verdict.orders.iter().filter(|claim| claim.finding == wanted).count();
    let (holds, reversed) = (count(Finding::Holds), count(Finding::Reversed));
    let counts = counts(holds, reversed, verdict.orders.len() - holds - reversed);
    let (en, ko) = match verdict.order() {
        Finding::Holds if verdict.whole => (
            "the paper's order holds at every training size.".into(),
            "모든 학습 데이터 크기에서 논문이 보고한 성능 순위가 재현됩니다.".into(),
        ),
        Finding::Holds => (
            "the part of the paper's order that was run holds.".into(),
            "실험한 방법들 사이에서는 논문이 보고한 성능 순위가 재현됩니다.".into(),
        ),
        Finding::Reversed => (
            format!("the paper's order does not hold: {}.", counts.en),
            format!("논문이 보고한 성능 순위가 재현되지 않습니다. {}.", counts.ko),
        ),
        Finding::Undecided => (
            format!("the data do not decide the whole of the paper's order: {}.", counts.en),
            format!(
                "이 실험만으로는 논문의 성능 순위가 재현되는지 판단할 수 없습니다. {}.",
                counts.ko
            ),
        ),
        Finding::Missing => (
            "the runs that the paper's order is about are not there yet.".into(),
            "논문의 성능 순위를 확인할 실험이 아직 없습니다.".into(),
        ),
    };
    let lead = words(
        format!("With {}{}, {en}", name.en, here.en),
        format!("{}{}에서는 {ko}", name.ko, here.ko),
    );
    let sentences: Vec<Words> = std::iter::once(lead).chain(pairs(study, verdict)).collect();
    let join =
        |language: fn(&Words) -> &str| sentences.iter().map(language).collect::<Vec<_>>().join(" ");
    words(join(|sentence| &sentence.en), join(|sentence| &sentence.ko))
}

/// How many claims were found to be what, within a sentence; of what there is none it is silent.
fn counts(holds: usize, reversed: usize, open: usize) -> Words {
    struct Part {
        count: usize,
        /// After "1" and after more.
        en: [&'static str; 2],
        /// Before another part and as the last one.
        ko: [&'static str; 2],
    }
    let part = |count, en, ko| Part { count, en, ko };
    let parts = [
        part(holds, ["holds", "hold"], ["재현되고", "재현됩니다"]),
        part(reversed, ["is reversed", "are reversed"], ["반대이며", "반대입니다"]),
        part(open, ["cannot be decided"; 2], ["", "판단할 수 없습니다"]),
    ];
    let parts: Vec<Part> = parts.into_iter().filter(|part| part.count > 0).collect();
    let all = holds + reversed + open;
    if let [Part { en: [one, many], ko: [_, last], .. }] = parts.as_slice() {
        return if all == 1 {
            words(format!("the one pairwise claim {one}"), format!("하나뿐인 쌍별 비교는 {last}"))
        } else {
            let en = match open == all {
                true => format!("none of the {all} pairwise claims can be decided"),
                false => format!("all {all} pairwise claims {many}"),
            };
            words(en, format!("쌍별 비교 {all}개는 모두 {last}"))
        };
    }
    let each = parts.iter().enumerate().map(|(index, Part { count, en, ko })| {
        let en = en[usize::from(*count > 1)];
        let ko = ko[usize::from(index + 1 == parts.len())];
        words(format!("{count} {en}"), format!("{count}개는 {ko}"))
    });
    let each: Vec<Words> = each.collect();
    let ko: Vec<&str> = each.iter().map(|part| part.ko.as_str()).collect();
    words(
        format!("of {all} pairwise claims, {}", list(&each).en),
        format!("쌍별 비교 {all}개 가운데 {}", ko.join(" ")),
    )
}

/// A sentence per pair of methods and finding, with the differences it rests on.
fn pairs(study: &Study, verdict: &RecipeVerdict) -> Vec<Words> {
    let mut groups: Vec<(Finding, Vec<&OrderClaim>)> = Vec::new();
    for claim in &verdict.orders {
        let same = |(finding, claims): &&mut (Finding, Vec<&OrderClaim>)| {
            let first = claims[0];
            (*finding, &first.better, &first.worse) == (claim.finding, &claim.better, &claim.worse)
        };
        match groups.iter_mut().find(same) {
            Some((_, claims)) => claims.push(claim),
            None => groups.push((claim.finding, vec![claim])),
        }
    }
    groups
        .into_iter()
        // Where there are no runs at all, the lead has said it.
        .filter(|(finding, _)| *finding != Finding::Missing || verdict.order() != Finding::Missing)
        .map(|(finding, claims)| pair(study, finding, &claims))
        .collect()
}

fn pair(study: &Study, finding: Finding, claims: &[&OrderClaim]) -> Words {
    let (better, worse) = (method_words(&claims[0].better), method_words(&claims[0].worse));
    let found: Vec<(Rows, BootstrapDifference)> = claims
        .iter()
        .filter_map(|claim| {
            Some((claim.train_size, difference(&study.contrasts[claim.contrast?])?))
        })
        .collect();
    let ahead = |ahead: &Words, behind: &Words, by: &Words| {
        words(
            format!("{} beats {} by {}.", ahead.en, behind.en, by.en),
            format!(
                "{} {}\u{2060}보다 {} 더 정확합니다.",
                with_particle(&ahead.ko, Particle::Subject),
                behind.ko,
                by.ko
            ),
        )
    };
    match finding {
        Finding::Holds => ahead(&better, &worse, &estimates(&found)),
        Finding::Reversed => {
            let turned: Vec<_> =
                found.into_iter().map(|(size, difference)| (size, turned(difference))).collect();
            ahead(&worse, &better, &estimates(&turned))
        }
        Finding::Undecided => {
            let by = estimates(&found);
            let but = although_beyond_zero(study, claims);
            words(
                format!(
                    "The data do not decide whether {} beats {}: {}{}.",
                    better.en, worse.en, by.en, but.en
                ),
                format!(
                    "{} {}의 우열은 판단할 수 없습니다(차이 {}{}).",
                    with_particle(&better.ko, Particle::And),
                    worse.ko,
                    by.ko,
                    but.ko
                ),
            )
        }
        Finding::Missing => {
            let sizes: Vec<Words> = claims.iter().map(|claim| reviews(claim.train_size)).collect();
            let sizes = list(&sizes);
            words(
                format!("{} and {} have no runs to compare on {}.", better.en, worse.en, sizes.en),
                format!(
                    "{}에서 {} {} 비교할 실험이 없습니다.",
                    sizes.ko,
                    with_particle(&better.ko, Particle::And),
                    with_particle(&worse.ko, Particle::Object)
                ),
            )
        }
    }
}

/// Why what lies beyond 0 with its whole interval decides nothing.
fn although_beyond_zero(study: &Study, claims: &[&OrderClaim]) -> Words {
    let is_beyond = |pair: &Pair| {
        let Interval { low, high } = pair.bootstrap.interval;
        low > 0.0 || high < 0.0
    };
    let mut found: Vec<Words> = Vec::new();
    for claim in claims {
        let pair = claim.contrast.and_then(|index| study.contrasts[index].pair.as_ref());
        let Some(pair) = pair else { continue };
        if is_beyond(pair) && pair.holm_p >= Finding::LEVEL {
            let (p, of) = (p_value(pair.holm_p), reviews(claim.train_size));
            found.push(words(
                format!("p\u{a0}=\u{a0}{p} ({})", of.en),
                format!("{}의 Holm 보정 McNemar 검정 p\u{a0}=\u{a0}{p}", of.ko),
            ));
        }
    }
    if found.is_empty() {
        return words("", "");
    }
    let Words { en, ko } = list(&found);
    words(format!("; McNemar's test, corrected by Holm, gives {en}"), format!("; {ko}"))
}

fn difference(contrast: &Contrast) -> Option<BootstrapDifference> {
    Some(contrast.pair.as_ref()?.bootstrap)
}

/// Half the length of a difference's interval.
fn half_width(contrast: &Contrast) -> Option<f64> {
    let Interval { low, high } = difference(contrast)?.interval;
    Some((high - low) / 2.0)
}

/// Second less first.
pub(crate) fn turned(difference: BootstrapDifference) -> BootstrapDifference {
    let Interval { low, high } = difference.interval;
    BootstrapDifference {
        difference: -difference.difference,
        interval: Interval { low: -high, high: -low },
        ..difference
    }
}

/// Percentage points of accuracy with their interval, as `12.3 points [11.8, 12.9]`.
pub(crate) fn estimate(
    BootstrapDifference { difference, interval, .. }: BootstrapDifference,
) -> Words {
    let values = [difference, interval.low, interval.high].map(|value| value * 100.0);
    // An end that only rounding puts at 0 gets more digits: 0 means that there is no difference.
    let is_zero = |value: f64, digits: usize| value.abs() < 0.5 * 0.1_f64.powi(digits as i32);
    let vanishes =
        |digits: &usize| values.iter().any(|&value| value != 0.0 && is_zero(value, *digits));
    let digits = (1..4).find(|digits| !vanishes(digits)).unwrap_or(4);
    let [difference, low, high] = values.map(|value| signed(format!("{value:.digits$}")));
    // No line breaks within a figure.
    let interval = format!("\u{a0}[{low},\u{a0}{high}]");
    let en = format!("{difference}\u{a0}points{interval}");
    words(en, format!("{difference}%p{interval}\u{2060}"))
}

/// With a minus sign that is one; nothing is less than nothing.
fn signed(figure: String) -> String {
    match figure.strip_prefix('-') {
        Some(rest) if rest.chars().all(|digit| matches!(digit, '0' | '.')) => rest.to_owned(),
        Some(rest) => format!("−{rest}"),
        None => figure,
    }
}

/// Differences, each with the training size it is of.
fn estimates(found: &[(Rows, BootstrapDifference)]) -> Words {
    let each = found.iter().enumerate().map(|(index, (rows, difference))| {
        let (figures, of) = (estimate(*difference), size_words(*rows));
        let reviews = if index == 0 { " reviews" } else { "" };
        let count = if *rows == Rows::All { "" } else { "건" };
        words(
            format!("{} ({}{reviews})", figures.en, of.en),
            format!("{}({}{count})\u{2060}", figures.ko, of.ko),
        )
    });
    list(&each.collect::<Vec<_>>())
}

/// The last after "and"; Korean has commas alone.
fn list(parts: &[Words]) -> Words {
    let en = match parts {
        [parts @ .., last] if !parts.is_empty() => {
            let parts: Vec<&str> = parts.iter().map(|part| part.en.as_str()).collect();
            format!("{} and {}", parts.join(", "), last.en)
        }
        parts => parts.iter().map(|part| part.en.as_str()).collect(),
    };
    let ko: Vec<&str> = parts.iter().map(|part| part.ko.as_str()).collect();
    words(en, ko.join(", "))
}

fn collapse(study: &Study, verdict: &RecipeVerdict) -> Option<Words> {
    let mut found = Vec::new();
    let mut names: Vec<&str> = Vec::new();
    for collapse in &verdict.collapses {
        let contrast = &study.contrasts[collapse.contrast];
        if let Some(difference) = difference(contrast) {
            found.push((collapse.train_size, difference));
            names.push(&study.cells[contrast.second].key.label);
        }
    }
    names.dedup();
    let lora = if let [name] = names.as_slice() { name } else { "LoRA" };
    if found.is_empty() {
        return None;
    }
    let gaps = estimates(&found);
    let name = if verdict.is_papers() {
        words(
            format!("this reconstruction of the paper's {lora}"),
            format!("논문의 학습 설정을 추정해 재구성한 {lora}"),
        )
    } else {
        lora.into()
    };
    let performance = format!("{}의 성능", name.ko);
    let finding = verdict.collapse();
    let Words { en, ko } = match finding {
        Finding::Holds => {
            words(format!("{} collapses", name.en), format!("{performance}은 크게 무너집니다"))
        }
        Finding::Reversed => {
            let all = verdict.collapses.iter().all(|gap| gap.finding == Finding::Reversed);
            if all {
                words(
                    format!(
                        "{} does not collapse (it lies no more than 5 points below vanilla)",
                        name.en
                    ),
                    format!(
                        "{performance}은 무너지지 않습니다(전체 미세조정보다 5%p 넘게 낮지 않음)"
                    ),
                )
            } else {
                words(
                    format!("at some training sizes {} does not collapse", name.en),
                    format!("{performance}이 모든 학습 데이터 크기에서 무너지지는 않습니다"),
                )
            }
        }
        Finding::Undecided | Finding::Missing => {
            let undecided = |gap: &Collapse| gap.finding == Finding::Undecided;
            let (sizes, sizes_ko) = if verdict.collapses.iter().all(undecided) {
                ("", "판단할 수 없습니다")
            } else {
                (" at every training size", "모든 학습 데이터 크기에서 판단할 수는 없습니다")
            };
            words(
                format!(
                    "the data do not decide{sizes} whether {} collapses (lies more than 5 points \
                     below vanilla)",
                    name.en
                ),
                format!(
                    "{performance}이 무너지는지, 곧 전체 미세조정보다 5%p 넘게 낮은지는 {sizes_ko}"
                ),
            )
        }
    };
    // Where LoRA collapses, every gap is one to below vanilla.
    let gaps = if finding == Finding::Holds {
        words(
            format!(": it lies {} below vanilla", gaps.en),
            format!("전체 미세조정보다 정확도가 {} 낮습니다", gaps.ko),
        )
    } else {
        words(
            format!("; vanilla less LoRA: {}", gaps.en),
            format!("전체 미세조정과의 차이(전체 미세조정 − LoRA)는 {}입니다", gaps.ko),
        )
    };
    let paper = match study.is_compared_with_the_paper() {
        true => words(" (the paper's LoRA: 14.5 to 21.4 points)", "(논문의 LoRA: 14.5~21.4%p)"),
        false => words("", ""),
    };
    Some(words(
        format!("{}{}{}.", capital(&en), gaps.en, paper.en),
        format!("{ko}. {}{}.", gaps.ko, paper.ko),
    ))
}

/// What explains the collapse, a sentence or two per LoRA that lies below vanilla and whose keys were
/// changed one at a time.
fn causes(study: &Study, verdict: &RecipeVerdict) -> Vec<Words> {
    if !verdict.is_papers() || verdict.collapse() != Finding::Holds {
        return Vec::new();
    }
    let mut changed: Vec<usize> = Vec::new();
    let has_gap = |cause: &&Cause| {
        let gap = cause.gap(study).and_then(difference);
        gap.is_none_or(|gap| gap.difference > 0.0)
    };
    let single = verdict.causes.iter().filter(|cause| cause.is_single(study));
    for cause in single.filter(has_gap) {
        let lora = study.contrasts[cause.contrast].second;
        if !changed.contains(&lora) {
            changed.push(lora);
        }
    }
    if changed.is_empty() {
        return vec![words(
            "No run changes one setting of this LoRA alone, so the cause cannot be told.",
            "이 LoRA에서 설정 항목을 하나만 바꾼 실험이 없어 원인을 가려낼 수 없습니다.",
        )];
    }
    let of = |lora: usize| {
        let of_lora = |cause: &&Cause| study.contrasts[cause.contrast].second == lora;
        let causes: Vec<&Cause> = verdict.causes.iter().filter(of_lora).collect();
        causes_of(study, lora, &causes)
    };
    changed.into_iter().map(of).collect()
}

fn causes_of(study: &Study, lora: usize, causes: &[&Cause]) -> Words {
    let key = &study.cells[lora].key;
    let on = reviews(key.train_size);
    let gap = causes.iter().find_map(|cause| difference(cause.gap(study)?));
    let mut text = match gap.map(estimate) {
        Some(gap) => words(
            format!("On {}, {} lies {} below vanilla.", on.en, key.label, gap.en),
            format!(
                "{}에서 {} 전체 미세조정보다 정확도가 {} 낮습니다.",
                on.ko,
                with_particle(&key.label, Particle::Topic),
                gap.ko
            ),
        ),
        None => words(
            format!("On {}, how far {} lies below vanilla is not known.", on.en, key.label),
            format!(
                "{}에서 {} 전체 미세조정보다 얼마나 낮은지는 알 수 없습니다.",
                on.ko,
                with_particle(&key.label, Particle::Subject)
            ),
        ),
    };
    let group = |wanted: Finding| -> Vec<Words> {
        let single = causes.iter().filter(|cause| cause.is_single(study));
        let found = single.filter(|cause| cause.explains(study) == wanted);
        found.map(|cause| change(study, cause)).collect()
    };
    let explaining = group(Finding::Holds);
    let none_explains = explaining.is_empty();
    if none_explains {
        text.en += " No setting changed alone is sure to close more than half of that gap.";
        text.ko += " 하나만 바꾸어 이 격차를 절반 넘게 메운다고 확인된 설정 항목은 없습니다.";
    }
    for (found, [one, many], ko) in [
        (
            explaining,
            [
                "This setting, changed alone, closes more than half of that gap",
                "Each of these settings, changed alone, closes more than half of that gap",
            ],
            "다음 설정 항목은 하나만 바꾸어도 이 격차를 절반 넘게 메웁니다",
        ),
        (
            group(Finding::Reversed),
            [
                "This setting, changed alone, closes less than half",
                "Each of these settings, changed alone, closes less than half",
            ],
            "다음 설정 항목은 하나만 바꾸면 절반도 메우지 못합니다",
        ),
        (
            group(Finding::Undecided),
            [
                "The data do not decide whether this setting, changed alone, closes more than half",
                "The data do not decide whether any of these settings, changed alone, closes more than \
                 half",
            ],
            "다음 설정 항목은 하나만 바꾸어 절반 넘게 메우는지 판단할 수 없습니다",
        ),
        (
            group(Finding::Missing),
            [
                "No finished run changes this setting alone",
                "No finished run changes any of these settings alone",
            ],
            "다음 설정 항목은 하나만 바꾸어 끝까지 실행한 실험이 없습니다",
        ),
    ] {
        if !found.is_empty() {
            let (en, found) = (if found.len() == 1 { one } else { many }, list(&found));
            text.en += &format!(" {en}: {}.", found.en);
            text.ko += &format!(" {ko}: {}.", found.ko);
        }
    }
    if none_explains {
        let Words { en, ko } = together(study, causes);
        text.en += &en;
        text.ko += &ko;
    }
    text
}

/// A change, what it gains, and how much of the gap that is.
fn change(study: &Study, cause: &Cause) -> Words {
    let contrast = &study.contrasts[cause.contrast];
    let factor = &contrast.factors[0];
    let name = key(&factor.key);
    let gain = match (difference(contrast), cause.closed) {
        (Some(difference), Some(closed)) => {
            let (gain, closed) = (estimate(difference), share(closed));
            words(
                format!("; accuracy changes by {}, {} of the gap", gain.en, closed.en),
                format!("; 정확도 변화 {}, 격차의 {}", gain.ko, closed.ko),
            )
        }
        _ => words("", ""),
    };
    // A number is not to break at its minus.
    let changed = format!("{}\u{a0}→ {}", factor.first, factor.second).replace('-', "-\u{2060}");
    words(
        format!("{} ({changed}{})", name.en, gain.en),
        format!("{}({changed}{})", name.ko, gain.ko),
    )
}

fn share(closed: f64) -> Words {
    let percent = signed(format!("{:.0}", closed * 100.0));
    words(format!("{percent}\u{a0}%"), format!("{percent}%"))
}

/// The fewest keys that explain it together, or that most of them leave it open; nothing if none
/// were changed together.
fn together(study: &Study, causes: &[&Cause]) -> Words {
    let keys = |cause: &&&Cause| study.contrasts[cause.contrast].factors.len();
    let several = |wanted: Finding| {
        causes
            .iter()
            .filter(move |cause| !cause.is_single(study) && cause.explains(study) == wanted)
    };
    let explains = several(Finding::Holds).min_by_key(keys);
    let open = several(Finding::Undecided).max_by_key(keys);
    let Some(cause) = explains.or(open) else { return words("", "") };
    let contrast = &study.contrasts[cause.contrast];
    let names: Vec<Words> = contrast.factors.iter().map(|factor| key(&factor.key)).collect();
    let names = list(&names);
    let changed = with_particle(&names.ko, Particle::Object);
    let (Some(difference), Some(closed)) = (difference(contrast), cause.closed) else {
        return words("", "");
    };
    let (gain, closed) = (estimate(difference), share(closed));
    if explains.is_some() {
        words(
            format!(
                " Changed together, {} close {} of the gap (accuracy changes by {}).",
                names.en, closed.en, gain.en
            ),
            format!(
                " {changed} 함께 바꾸면 격차의 {}를 메웁니다(정확도 변화 {}).",
                closed.ko, gain.ko
            ),
        )
    } else {
        words(
            format!(
                " The data do not decide whether {}, changed together, close more than half (accuracy \
                 changes by {}, {} of the gap).",
                names.en, gain.en, closed.en
            ),
            format!(
                " {changed} 함께 바꾸면 절반 넘게 메우는지는 판단할 수 없습니다(정확도 변화 {}, 격차의 {}).",
                gain.ko, closed.ko
            ),
        )
    }
}

/// Which conclusion depends on the recipe.
fn survives(study: &Study, verdict: &Verdict, paper: &RecipeVerdict) -> Option<Words> {
    let is_tuned = |other: &&RecipeVerdict| other.is_tuned() && other.setting == paper.setting;
    let tuned = verdict.recipes.iter().find(is_tuned)?;
    if paper.collapse() != Finding::Holds || tuned.collapse() == Finding::Missing {
        return None;
    }
    // At the largest size that both have.
    let (train_size, before, after) = paper.collapses.iter().find_map(|one| {
        let same = |other: &&Collapse| other.train_size == one.train_size;
        let other = tuned.collapses.iter().find(same)?;
        let [before, after] = [one, other].map(|gap| difference(&study.contrasts[gap.contrast]));
        Some((one.train_size, estimate(before?), estimate(after?)))
    })?;
    let on = reviews(train_size);
    let gaps = words(
        format!(
            "on {}, its gap to vanilla is {} before and {} after tuning",
            on.en, before.en, after.en
        ),
        format!(
            "{}에서 전체 미세조정과의 격차는 조정 전 {}, 조정 후 {}입니다",
            on.ko, before.ko, after.ko
        ),
    );
    let findings: Vec<Finding> = tuned.collapses.iter().map(|gap| gap.finding).collect();
    let Words { en, ko } = outlasts(&findings);
    Some(words(format!("{en}: {}.", gaps.en), format!("{ko}. {}.", gaps.ko)))
}

/// Whether LoRA collapses with the tuned recipe, too, by what was found at each size.
fn outlasts(findings: &[Finding]) -> Words {
    let all = |wanted: Finding| findings.iter().all(|finding| *finding == wanted);
    let decided = |finding: &Finding| matches!(finding, Finding::Holds | Finding::Reversed);
    if all(Finding::Reversed) {
        words(
            "The collapse of this reconstruction's LoRA is therefore a matter of the recipe, not of \
             the method",
            "따라서 재구성한 LoRA의 성능이 무너지는 원인은 방법이 아니라 학습 설정에 있습니다",
        )
    } else if all(Finding::Holds) {
        words(
            "LoRA collapses in spite of the tuning",
            "학습 설정을 조정해도 LoRA의 성능은 무너집니다",
        )
    } else if findings.iter().all(decided) {
        words(
            "After tuning, LoRA collapses at some training sizes and not at others",
            "학습 설정을 조정하면 LoRA의 성능은 일부 학습 데이터 크기에서만 무너집니다",
        )
    } else if findings.iter().any(decided) {
        words(
            "The data do not decide at every training size whether LoRA collapses after tuning, too",
            "학습 설정을 조정해도 LoRA의 성능이 무너지는지를 모든 학습 데이터 크기에서 판단할 수는 없습니다",
        )
    } else {
        words(
            "The data do not decide whether LoRA collapses after tuning, too",
            "학습 설정을 조정해도 LoRA의 성능이 무너지는지는 판단할 수 없습니다",
        )
    }
}

/// What the verdict cannot know.
pub(crate) fn caveats(study: &Study, verdict: &Verdict) -> Vec<Words> {
    let mut caveats = Vec::new();
    caveats.extend(foreign(study));
    if study.paper_scale.is_some() && study.is_compared_with_the_paper() {
        caveats.push(scaled(study));
    }
    if study.is_compared_with_the_paper() && verdict.paper().is_some() {
        caveats.push(words(
            "What the paper does not say (LoRA's alpha and target layers, whether the classifier \
             trains, the maximum length, weight decay, whether reviews were held out for validation, \
             AdapterFusion's first stage) is filled in from a Korean tutorial whose learning rate, \
             epsilon and epochs are the paper's (github.com/deepseasw/bert-naver-movie-review), \
             loralib, PEFT and adapters: a reconstruction, not the authors' configuration.",
            "논문에 적히지 않은 설정(LoRA의 alpha와 적용 층, 분류기 학습 여부, 최대 길이, weight decay, 검증 데이터 분리 여부, \
             AdapterFusion의 1단계 등)은 학습률, epsilon, 에폭 수가 논문과 같은 한국어 튜토리얼(github.com/deepseasw/bert-naver-movie-review)과 \
             loralib, PEFT, adapters의 기본값을 참고해 채운 추정이며, 저자들의 설정이 아닙니다.",
        ));
    }
    let seeds: Vec<usize> = verdict.recipes.iter().map(|recipe| recipe.seeds).collect();
    match seeds.iter().min() {
        Some(0) => caveats.push(words(
            "Some methods have no finished run.",
            "끝난 실험이 없는 방법이 있습니다.",
        )),
        Some(1) => caveats.push(words(
            "Some methods were run with one seed only. Another seed may change the accuracy by more than \
             the interval, so that those findings are about the trained models, not about the methods.",
            "시드 하나로만 실험한 방법이 있습니다. 시드를 바꾸면 정확도가 신뢰구간보다 크게 달라질 수 있으므로, 이때의 결론은 \
             방법이 아니라 학습된 그 모델에 대한 것입니다.",
        )),
        // With six, the least p is below 0.05.
        Some(&fewest) if fewest < 6 => {
            let least = 0.5_f64.powi(fewest as i32 - 1);
            caveats.push(words(
                format!(
                    "With {fewest} seeds, the sign-flip test over seeds cannot give a p below {least}. \
                     The findings therefore rest on the 95 % intervals and on McNemar's test."
                ),
                format!(
                    "시드가 {fewest}개이면 시드에 대한 부호 뒤집기(sign-flip) 순열 검정의 p값은 {least}보다 작아질 수 \
                     없습니다. 그래서 결론은 95% 신뢰구간과 McNemar 검정에 근거합니다."
                ),
            ));
        }
        _ => {}
    }
    let tested =
        study.cells.iter().flat_map(|cell| cell.answers()).map(|answers| answers.test.len());
    if let (Some(reviews), Some(widest)) = (
        tested.min().filter(|&reviews| reviews < 10_000),
        study.contrasts.iter().filter_map(half_width).reduce(f64::max),
    ) {
        caveats.push(reach(study, reviews, widest));
    }
    caveats.extend(outdated(study));
    caveats.extend(troubles(study));
    caveats
}

/// That runs are of programs which computed something else.
fn outdated(study: &Study) -> Vec<Words> {
    let mut runs: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    let all = study.runs();
    for change in all.iter().flat_map(|run| run.record.config.changed_since()) {
        *runs.entry(change).or_default() += 1;
    }
    let caveat = |((en, ko), count)| {
        words(
            format!(
                "{count} of {} runs were made before this program was changed and may come to other \
                 numbers today: {en}.",
                all.len()
            ),
            format!(
                "실험 {}개 중 {count}개는 이전 버전의 결과이므로, 다시 실행하면 수치가 달라질 수 있습니다(바뀐 점: {ko}).",
                all.len()
            ),
        )
    };
    runs.into_iter().map(caveat).collect()
}

/// How far the intervals of differences reach, and so what they cannot tell.
fn reach(study: &Study, reviews: usize, widest: f64) -> Words {
    let (reviews, widest) = (with_thousands(reviews), format!("{:.1}", widest * 100.0));
    let why = if study.has_several_seeds() {
        words(
            format!("With {reviews} test reviews and these seeds,"),
            format!("테스트 리뷰가 {reviews}건이고 시드에 따라서도 결과가 달라"),
        )
    } else {
        words(format!("With {reviews} test reviews,"), format!("테스트 리뷰가 {reviews}건이어서"))
    };
    words(
        format!(
            "{} the intervals of differences reach up to {widest} points to either side. A difference \
             whose interval holds 0 cannot be told from chance.",
            why.en
        ),
        format!(
            "{} 차이의 신뢰구간은 위아래로 최대 {widest}%p까지 벌어집니다. 신뢰구간이 0을 포함하는 차이는 우연과 구별할 수 \
             없습니다.",
            why.ko
        ),
    )
}

/// The small model of this repository.
const MINI: &str = "models/mini";

/// The paper's model.
const MBERT: &str = "bert-base-multilingual-cased";

/// That the runs are of another model or other data than the paper's; nothing where the page does not
/// speak of the paper.
fn foreign(study: &Study) -> Option<Words> {
    let configs: Vec<&ExperimentConfig> =
        study.cells.iter().filter_map(|cell| cell.config()).collect();
    if configs.is_empty() || study.is_of_own_data() {
        return None;
    }
    let is_mbert = |config: &ExperimentConfig| matches!(&config.model, ModelConfig::Pretrained { name, .. } if name == MBERT);
    let is_nsmc = |config: &ExperimentConfig| config.data.dataset == NSMC;
    if configs.iter().any(|config| is_mbert(config) && is_nsmc(config)) {
        return None;
    }
    let (mut models, mut data): (Vec<Words>, Vec<Words>) = (Vec::new(), Vec::new());
    for config in &configs {
        for (known, found) in [(&mut models, model(config)), (&mut data, dataset(config))] {
            if !known.contains(&found) {
                known.push(found);
            }
        }
    }
    let trained = study.cells.iter().filter_map(crate::figures::trained_on).max();
    let several =
        study.cells.iter().any(|cell| cell.key.train_size != study.cells[0].key.train_size);
    let (up_to, up_to_ko) = if several { ("up to ", "최대 ") } else { ("", "") };
    let (models, data) = (list(&models), list(&data));
    let reviews = match trained {
        Some(count) => {
            let count = with_thousands(count);
            words(
                format!("{up_to}{count} {}", data.en),
                format!("{} {up_to_ko}{count}건으로", data.ko),
            )
        }
        None => words(data.en, format!("{}로", data.ko)),
    };
    let (lead, lead_ko) = if configs.iter().all(|config| is_mbert(config)) {
        ("the paper's model but not its data", "모델은 논문과 같지만, 논문의 데이터가 아니라")
    } else if configs.iter().all(|config| is_nsmc(config)) {
        ("the paper's data but not its model", "데이터는 논문과 같지만, 논문의 모델이 아니라")
    } else {
        ("neither the paper's model nor its data", "논문의 모델이나 데이터가 아니라")
    };
    Some(words(
        format!(
            "These runs use {lead}: {}, trained on {}. They can neither confirm nor refute the paper.",
            models.en, reviews.en
        ),
        format!(
            "{lead_ko} {} 학습한 {}의 결과이므로, 이 결과로 논문의 결론을 확인하거나 반박할 수는 없습니다.",
            reviews.ko, models.ko
        ),
    ))
}

/// A model, within a sentence.
fn model(config: &ExperimentConfig) -> Words {
    match &config.model {
        ModelConfig::Pretrained { name, .. } if name == MINI => {
            words(format!("{MINI} (a small Korean BERT)"), format!("작은 한국어 BERT({MINI})"))
        }
        ModelConfig::Pretrained { name, .. } if name == MBERT => {
            words("multilingual BERT", "다국어 BERT")
        }
        ModelConfig::Pretrained { name, .. } => name.as_str().into(),
        ModelConfig::Scratch(_) => {
            words("a BERT with random initial weights", "무작위로 초기화한 BERT")
        }
    }
}

/// The paper's data.
const NSMC: &str = "nsmc";

/// The reviews of a data set, within a sentence.
fn dataset(config: &ExperimentConfig) -> Words {
    match config.data.dataset.as_str() {
        NSMC => words("NSMC reviews", "NSMC 리뷰"),
        "sample" => words("synthetic sample reviews", "합성 예제 리뷰"),
        other => words(format!("reviews of {other}"), format!("{other} 리뷰")),
    }
}

/// What runs that stand for the paper's at a multiple of their size cannot say.
fn scaled(study: &Study) -> Words {
    let mut text = words(
        "These runs are on fewer reviews than the paper's. They show whether the paper's order of methods \
         appears here, too, but their accuracies are not comparable with the paper's. How deep LoRA falls, \
         and why, may differ: there are fewer training steps",
        "논문보다 적은 리뷰로 학습한 결과입니다. 논문이 보고한 방법의 순위가 여기서도 나타나는지는 볼 수 있지만, 정확도의 절댓값은 \
         논문과 비교할 수 없습니다. ",
    );
    let mut configs = study.cells.iter().filter_map(|cell| cell.config()).peekable();
    // A baseline's configuration names a model, too.
    let is_mini = |config: &ExperimentConfig| matches!(&config.model, ModelConfig::Pretrained { name, .. } if name == MINI);
    let few_steps = "리뷰가 적은 만큼 학습 스텝 수도 적";
    if configs.peek().is_some() && configs.all(is_mini) {
        text.en += ", and this model has no pre-trained pooler.";
        text.ko += &format!("{few_steps}고 사전학습된 pooler도 없어");
    } else {
        text.en += ".";
        text.ko += &format!("{few_steps}어");
    }
    text.ko += ", LoRA의 성능이 무너지는 정도와 원인은 논문과 다를 수 있습니다.";
    text
}

/// Runs that learned nothing, failed or are not there; nothing if there are none.
fn troubles(study: &Study) -> Option<Words> {
    let runs = study.runs();
    let chance = runs.iter().filter(|run| run.is_at_chance()).count();
    let failed = |run: &&&StudyRun| matches!(run.record.status, RunStatus::Failed { .. });
    let failed = runs.iter().filter(failed).count();
    let missing: usize = study.cells.iter().map(|cell| cell.missing.len()).sum();
    let parts = [
        (
            chance,
            format!("Runs stuck at chance, which count like all others: {chance}."),
            format!("우연 수준에 머문 실험 {chance}개도 집계에 포함했습니다."),
        ),
        (failed, format!("Failed runs: {failed}."), format!("실패한 실험: {failed}개.")),
        (
            missing,
            format!("Planned and not run: {missing}."),
            format!("계획했으나 실행하지 않은 실험: {missing}개."),
        ),
    ];
    let parts: Vec<_> = parts.into_iter().filter(|(count, ..)| *count > 0).collect();
    let join = |part: fn(&(usize, String, String)) -> &str| {
        parts.iter().map(part).collect::<Vec<_>>().join(" ")
    };
    (!parts.is_empty()).then(|| words(join(|(_, en, _)| en), join(|(.., ko)| ko)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::fabricated;

    fn points(difference: f64, low: f64, high: f64) -> BootstrapDifference {
        let [difference, low, high] = [difference, low, high].map(|value| value / 100.0);
        let interval = Interval { low, high };
        BootstrapDifference { difference, standard_error: 0.0, interval }
    }

    #[test]
    fn an_estimate_has_its_interval_and_never_an_end_that_rounding_alone_puts_at_zero() {
        for (difference, expected) in [
            (points(12.34, 11.77, 12.91), "12.3 points [11.8, 12.9]"),
            (turned(points(12.34, 11.77, 12.91)), "−12.3 points [−12.9, −11.8]"),
            (points(0.31, 0.04, 0.58), "0.31 points [0.04, 0.58]"),
            (points(0.31, 0.003, 0.6), "0.310 points [0.003, 0.600]"),
            (points(0.2, -0.3, 0.7), "0.2 points [−0.3, 0.7]"),
            (points(0.0, 0.0, 0.0), "0.0 points [0.0, 0.0]"),
        ] {
            let Words { en, ko } = estimate(difference);
            assert_eq!(en.replace('\u{a0}', " "), expected);
            let ko = ko.replace('\u{a0}', " ").replace('\u{2060}', "");
            assert_eq!(ko, expected.replace(" points", "%p"));
        }
        assert_eq!(share(-0.001), words("0\u{a0}%", "0%"));
    }

    #[test]
    fn the_claims_are_counted_without_what_there_is_none_of() {
        for ((holds, reversed, open), en, ko) in [
            (
                (1, 2, 1),
                "of 4 pairwise claims, 1 holds, 2 are reversed and 1 cannot be decided",
                "쌍별 비교 4개 가운데 1개는 재현되고 2개는 반대이며 1개는 판단할 수 없습니다",
            ),
            (
                (5, 1, 0),
                "of 6 pairwise claims, 5 hold and 1 is reversed",
                "쌍별 비교 6개 가운데 5개는 재현되고 1개는 반대입니다",
            ),
            (
                (3, 0, 2),
                "of 5 pairwise claims, 3 hold and 2 cannot be decided",
                "쌍별 비교 5개 가운데 3개는 재현되고 2개는 판단할 수 없습니다",
            ),
            ((0, 3, 0), "all 3 pairwise claims are reversed", "쌍별 비교 3개는 모두 반대입니다"),
            (
                (0, 0, 2),
                "none of the 2 pairwise claims can be decided",
                "쌍별 비교 2개는 모두 판단할 수 없습니다",
            ),
            (
                (0, 0, 1),
                "the one pairwise claim cannot be decided",
                "하나뿐인 쌍별 비교는 판단할 수 없습니다",
            ),
        ] {
            assert_eq!(counts(holds, reversed, open), words(en, ko));
        }
    }

    #[test]
    fn a_collapse_outlasts_the_tuning_only_where_it_was_found_to() {
        use Finding::{Holds, Missing, Reversed, Undecided};
        const SOME: &str = "at every training size whether LoRA collapses after tuning, too";
        for (findings, en, ko) in [
            (
                vec![Reversed; 2],
                "a matter of the recipe, not of the method",
                "학습 설정에 있습니다",
            ),
            (vec![Holds; 2], "in spite of the tuning", "조정해도 LoRA의 성능은 무너집니다"),
            // Decided at every size, but not alike.
            (
                vec![Holds, Reversed],
                "at some training sizes and not at others",
                "크기에서만 무너집니다",
            ),
            (vec![Reversed, Undecided], SOME, "판단할 수는 없습니다"),
            (vec![Holds, Missing], SOME, "판단할 수는 없습니다"),
            (
                vec![Undecided; 2],
                "The data do not decide whether LoRA collapses after tuning, too",
                "무너지는지는 판단할 수 없습니다",
            ),
        ] {
            let found = outlasts(&findings);
            assert!(found.en.ends_with(en) && found.ko.ends_with(ko), "{findings:?}: {found:?}");
        }
    }

    #[test]
    fn a_lora_that_lies_below_nothing_has_no_cause() {
        let folder = tempfile::tempdir().unwrap();
        for size in [1000, 500] {
            let paper = fabricated::config("paper", size, 0);
            let other = ExperimentConfig { recipe: "lora-alpha".into(), ..paper.clone() };
            fabricated::run(folder.path(), &paper, 0.80, 1.0);
            fabricated::run(folder.path(), &fabricated::lora(paper.clone(), 64, 1.0), 0.62, 1.0);
            // A lower rank is as good as vanilla, and of its change at 500 reviews nothing is known.
            fabricated::run(folder.path(), &fabricated::lora(paper, 16, 1.0), 0.84, 1.0);
            for rank in [64, 16] {
                let changed = fabricated::lora(other.clone(), rank, 128.0);
                match size {
                    1000 => fabricated::run(folder.path(), &changed, 0.79, 1.0),
                    _ => fabricated::failed(folder.path(), &changed, "out of memory"),
                }
            }
        }
        let study = Study::read_runs(folder.path(), None).unwrap();
        let paper = Verdict::new(&study);
        let found = causes(&study, paper.paper().unwrap());
        let [first, second] = found.as_slice() else { panic!("{found:?}") };
        assert!(first.en.contains("LoRA r=64 lies 1"), "{first:?}");
        assert!(first.en.contains("closes more than half of that gap: alpha (1"), "{first:?}");
        assert!(first.en.ends_with("\u{a0}% of the gap)."), "{first:?}");
        assert!(first.ko.contains("절반 넘게 메웁니다: alpha(1"), "{first:?}");
        assert!(!first.en.contains("No finished run"), "{first:?}");
        assert!(second.en.contains("LoRA r=64") && second.en.contains("500 reviews"), "{second:?}");
        assert!(second.en.contains("No finished run changes this setting alone: alpha (1"));
        assert!(second.ko.contains("끝까지 실행한 실험이 없습니다: alpha(1"), "{second:?}");
    }

    #[test]
    fn a_p_that_decides_nothing_names_the_size_it_is_of() {
        let folder = tempfile::tempdir().unwrap();
        for size in [1000, 500] {
            for seed in 0..3 {
                let config = fabricated::config("paper", size, seed);
                fabricated::run(folder.path(), &config, 0.80, 1.0);
                let accuracy = if size == 1000 { 0.80 } else { 0.70 };
                fabricated::run(folder.path(), &fabricated::lora(config, 64, 1.0), accuracy, 1.0);
            }
        }
        let mut study = Study::read_runs(folder.path(), None).unwrap();
        let verdict = Verdict::new(&study);
        let claims: Vec<&OrderClaim> = verdict.recipes[0].orders.iter().collect();
        assert_eq!(claims.len(), 2);
        assert_eq!(although_beyond_zero(&study, &claims), words("", ""));
        for (claim, p) in claims.iter().zip([0.25, 0.5]) {
            let pair = study.contrasts[claim.contrast.unwrap()].pair.as_mut().unwrap();
            pair.holm_p = p;
        }
        // An interval that holds 0 needs no such reason.
        let found = pair(&study, Finding::Undecided, &claims);
        let plain = |text: &str| text.replace('\u{a0}', " ").replace('\u{2060}', "");
        let (en, ko) = (plain(&found.en), plain(&found.ko));
        assert!(en.starts_with("The data do not decide whether Vanilla beats LoRA r=64: "), "{en}");
        let reason = "; McNemar's test, corrected by Holm, gives p = 0.5000 (500 reviews).";
        assert!(en.ends_with(reason), "{en}");
        assert!(ko.contains("LoRA r=64의 우열은 판단할 수 없습니다(차이 "), "{ko}");
        assert!(ko.ends_with("; 학습 데이터 500건의 Holm 보정 McNemar 검정 p = 0.5000)."), "{ko}");
    }

    type Change = fn(&mut ExperimentConfig);

    /// The caveats of a fabricated study, on the paper's data and with a change to its runs.
    fn caveats_of(scale: Option<usize>, seeds: u64, change: Change) -> Vec<Words> {
        let folder = tempfile::tempdir().unwrap();
        for seed in 0..seeds {
            let paper = fabricated::config("paper", 1000, seed);
            fabricated::run(folder.path(), &paper, 0.86, 1.0);
            fabricated::run(folder.path(), &fabricated::lora(paper, 64, 1.0), 0.62, 1.0);
        }
        let mut study = Study::read_runs(folder.path(), None).unwrap();
        study.paper_scale = scale;
        for run in study.cells.iter_mut().flat_map(|cell| &mut cell.runs) {
            let config = &mut Arc::make_mut(run).record.config;
            config.data.dataset = "nsmc".into();
            change(config);
        }
        caveats(&study, &Verdict::new(&study))
    }

    const IS_MINI: Change = |config| {
        if let ModelConfig::Pretrained { name, .. } = &mut config.model {
            *name = MINI.into();
        }
    };

    const IS_MBERT: Change = |config| {
        if let ModelConfig::Pretrained { name, .. } = &mut config.model {
            *name = MBERT.into();
        }
    };

    #[test]
    fn runs_of_another_model_or_other_data_confirm_and_refute_nothing() {
        let mini_on_sample: Change = |config| {
            IS_MINI(config);
            config.data.dataset = "sample".into();
        };
        let mbert_on_sample: Change = |config| {
            IS_MBERT(config);
            config.data.dataset = "sample".into();
        };
        for (change, en, ko) in [
            (
                mini_on_sample,
                "These runs use neither the paper's model nor its data: models/mini (a small Korean \
                 BERT), trained on 1,000 synthetic sample reviews. They can neither confirm nor refute \
                 the paper.",
                "논문의 모델이나 데이터가 아니라 합성 예제 리뷰 1,000건으로 학습한 작은 한국어 BERT(models/mini)의 결과이므로, \
                 이 결과로 논문의 결론을 확인하거나 반박할 수는 없습니다.",
            ),
            (
                IS_MINI,
                "These runs use the paper's data but not its model: models/mini (a small Korean BERT), \
                 trained on 1,000 NSMC reviews. They can neither confirm nor refute the paper.",
                "데이터는 논문과 같지만, 논문의 모델이 아니라 NSMC 리뷰 1,000건으로 학습한 작은 한국어 BERT(models/mini)의 \
                 결과이므로, 이 결과로 논문의 결론을 확인하거나 반박할 수는 없습니다.",
            ),
            (
                mbert_on_sample,
                "These runs use the paper's model but not its data: multilingual BERT, trained on 1,000 \
                 synthetic sample reviews. They can neither confirm nor refute the paper.",
                "모델은 논문과 같지만, 논문의 데이터가 아니라 합성 예제 리뷰 1,000건으로 학습한 다국어 BERT의 결과이므로, 이 \
                 결과로 논문의 결론을 확인하거나 반박할 수는 없습니다.",
            ),
        ] {
            assert_eq!(caveats_of(None, 1, change)[0], words(en, ko));
        }
        let own: Change = |config| config.data.dataset = "mine".into();
        for change in [IS_MBERT, own] {
            let caveats = caveats_of(None, 1, change);
            assert!(!caveats.iter().any(|caveat| caveat.en.contains("refute")), "{caveats:?}");
        }
    }

    #[test]
    fn what_is_not_compared_with_the_paper_has_no_gap_of_the_papers_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let paper = fabricated::config("paper", 1000, 0);
        fabricated::run(folder.path(), &paper, 0.86, 1.0);
        fabricated::run(folder.path(), &fabricated::lora(paper, 64, 1.0), 0.62, 1.0);
        for (dataset, beside) in [("sample", false), ("nsmc", true)] {
            let mut study = Study::read_runs(folder.path(), None).unwrap();
            study.paper_scale = Some(150);
            for run in study.cells.iter_mut().flat_map(|cell| &mut cell.runs) {
                Arc::make_mut(run).record.config.data.dataset = dataset.into();
            }
            let verdict = Verdict::new(&study);
            let found = collapse(&study, &verdict.recipes[0]).unwrap();
            assert!(found.en.contains("LoRA r=64 collapses: it lies "), "{found:?}");
            assert!(found.ko.contains("LoRA r=64의 성능은 크게 무너집니다. "), "{found:?}");
            let has = (found.en.contains("the paper's LoRA:"), found.ko.contains("논문의 LoRA:"));
            assert_eq!(has, (beside, beside), "{dataset}");
        }
    }

    #[test]
    fn a_model_is_said_to_be_small_where_it_is() {
        let found = |scale: Option<usize>, change: Change| {
            let caveats = caveats_of(scale, 1, change);
            let has = |en: &str, ko: &str| {
                let found = caveats.iter().find(|caveat| caveat.en.contains(en));
                found.is_some_and(|caveat| caveat.ko.contains(ko))
            };
            (
                has("fewer reviews", "논문보다 적은 리뷰"),
                has("small Korean BERT", "작은 한국어 BERT"),
            )
        };
        assert_eq!(found(Some(150), IS_MINI), (true, true));
        let caveats = caveats_of(Some(150), 1, |_| ());
        let other = caveats.iter().find(|caveat| caveat.en.contains("fewer reviews")).unwrap();
        assert!(!other.en.contains("pooler") && !other.ko.contains("pooler"), "{other:?}");
        assert!(other.ko.starts_with("논문보다 적은 리뷰로") && !other.ko.contains("한국어 BERT"));
        let own: Change = |config| config.data.dataset = "mine".into();
        assert_eq!(found(None, IS_MINI), (false, true));
        assert_eq!(found(Some(150), own), (false, false), "not beside the paper's");
    }

    #[test]
    fn runs_of_programs_that_computed_something_else_are_counted() {
        let found = |change: Change| {
            let caveats = caveats_of(None, 2, change);
            caveats.into_iter().find(|caveat| caveat.en.contains("before this program was changed"))
        };
        assert!(found(|_| ()).is_none());
        let caveat = found(|config| config.training.weight_decay = 0.01).unwrap();
        assert!(caveat.en.starts_with("4 of 4 runs were made before"), "{caveat:?}");
        assert!(caveat.ko.starts_with("실험 4개 중 4개는") && caveat.ko.contains("weight decay"));
        assert!(
            found(|config| {
                config.training.weight_decay = 0.01;
                config.numerics = config.todays_numerics();
            })
            .is_none()
        );
    }

    #[test]
    fn what_cannot_be_told_from_chance_is_a_difference_whose_interval_holds_0() {
        for (seeds, en, ko) in [
            (1, "With 2,000 test reviews, the intervals", "테스트 리뷰가 2,000건이어서 차이의"),
            (
                2,
                "With 2,000 test reviews and these seeds, the",
                "2,000건이고 시드에 따라서도 결과가 달라 차이의",
            ),
        ] {
            let caveats = caveats_of(None, seeds, |_| ());
            let chance = |caveat: &&Words| caveat.en.contains("cannot be told from chance");
            let caveat = caveats.iter().find(chance).unwrap();
            assert!(caveat.en.contains(en) && caveat.ko.contains(ko), "{caveat:?}");
            assert!(caveat.en.contains("A difference whose interval holds 0 cannot"), "{caveat:?}");
        }
    }

    #[test]
    fn differences_name_the_size_they_are_of() {
        let one = points(6.0, 5.0, 7.0);
        let three = [Rows::Exactly(150_000), Rows::Exactly(50_000), Rows::All];
        let found = estimates(&three.map(|rows| (rows, one)));
        assert_eq!(
            found.en.replace('\u{a0}', " "),
            "6.0 points [5.0, 7.0] (150,000 reviews), 6.0 points [5.0, 7.0] (50,000) and 6.0 points \
             [5.0, 7.0] (all)"
        );
        assert_eq!(
            found.ko.replace('\u{a0}', " ").replace('\u{2060}', ""),
            "6.0%p [5.0, 7.0](150,000건), 6.0%p [5.0, 7.0](50,000건), 6.0%p [5.0, 7.0](전체)"
        );
    }
}
