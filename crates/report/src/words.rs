//! What the numbers say, in English and Korean.

use nsmc_eval::study::{Cause, Finding, RecipeVerdict, Study, Verdict};
use nsmc_eval::with_thousands;
use nsmc_experiment::Rows;

/// The same in two languages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Words {
    pub(crate) en: String,
    pub(crate) ko: String,
}

pub(crate) fn words(en: impl Into<String>, ko: impl Into<String>) -> Words {
    Words { en: en.into(), ko: ko.into() }
}

/// A recipe, within a sentence.
pub(crate) fn recipe(name: &str) -> Words {
    match name {
        "" => words("the one recipe", "하나뿐인 설정"),
        "paper" => words("the paper's recipe", "논문의 설정"),
        "tuned" => words("tuned learning rates", "방법별로 조정한 학습률"),
        other => words(format!("recipe {other}"), format!("{other} 설정")),
    }
}

/// A key of the configuration.
pub(crate) fn key(name: &str) -> Words {
    match name {
        "method.alpha" => words("alpha", "alpha"),
        "method.trains" => words("what trains beside LoRA", "LoRA 외에 학습되는 부분"),
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
        Finding::Holds => words("holds", "성립"),
        Finding::Reversed => words("reversed", "반대"),
        Finding::Undecided => words("undecided", "판단 불가"),
        Finding::Missing => words("no runs", "실험 없음"),
    }
}

/// Training reviews.
pub(crate) fn size(size: Rows) -> String {
    match size {
        Rows::All => "all".into(),
        Rows::Exactly(size) => with_thousands(size),
    }
}

/// The verdict, a sentence or two per recipe and question.
pub(crate) fn verdict(study: &Study, verdict: &Verdict) -> Vec<Words> {
    let mut sentences = Vec::new();
    if verdict.recipes.is_empty() {
        sentences.push(words(
            "These runs hold no recipe with vanilla and another method: they cannot say whether the \
             paper's order holds.",
            "vanilla와 다른 방법을 함께 실행한 설정이 없어, 논문의 순서가 성립하는지 말할 수 없습니다.",
        ));
    }
    for recipe in &verdict.recipes {
        sentences.push(order(recipe, several_settings(verdict)));
        sentences.extend(collapse(study, recipe));
        sentences.extend(causes(study, recipe));
    }
    sentences.extend(survives(verdict));
    sentences
}

fn several_settings(verdict: &Verdict) -> bool {
    verdict.recipes.iter().any(|recipe| recipe.setting != verdict.recipes[0].setting)
}

fn order(verdict: &RecipeVerdict, named: bool) -> Words {
    let name = recipe(&verdict.recipe);
    let here = if named {
        words(format!(" ({})", verdict.setting), format!(" ({})", verdict.setting))
    } else {
        words("", "")
    };
    let count =
        |wanted: Finding| verdict.orders.iter().filter(|claim| claim.finding == wanted).count();
    let (all, holds, reversed) =
        (verdict.orders.len(), count(Finding::Holds), count(Finding::Reversed));
    let counts = words(
        format!(
            "{holds} of {all} pairwise claims hold, {reversed} are reversed, {} cannot be decided",
            all - holds - reversed
        ),
        format!(
            "짝지은 주장 {all}개 가운데 {holds}개가 성립하고 {reversed}개는 반대이며 {}개는 판단할 수 없습니다",
            all - holds - reversed
        ),
    );
    let (en, ko) = match verdict.order() {
        Finding::Holds => (
            format!(
                "the paper's order holds at every training size: vanilla is more accurate than \
                 AdapterFusion, and AdapterFusion more than LoRA. {holds} claims of {all}, with \
                 intervals and corrected p."
            ),
            format!(
                "모든 학습 크기에서 논문의 순서가 성립합니다. vanilla가 AdapterFusion보다, AdapterFusion이 \
                 LoRA보다 정확합니다(구간과 보정한 p 기준, 주장 {all}개 중 {holds}개)."
            ),
        ),
        Finding::Reversed => (
            format!("the paper's order does not hold: {}.", counts.en),
            format!("논문의 순서가 성립하지 않습니다. {}.", counts.ko),
        ),
        Finding::Undecided => (
            format!("the data do not decide the whole of the paper's order: {}.", counts.en),
            format!("논문의 순서 전체를 판단하기에는 자료가 부족합니다. {}.", counts.ko),
        ),
        Finding::Missing => (
            "the runs that the paper's order is about are not there yet.".into(),
            "논문의 순서를 판단할 실험이 아직 없습니다.".into(),
        ),
    };
    words(
        format!("With {}{}, {en}", name.en, here.en),
        format!("{}{}에서는 {ko}", name.ko, here.ko),
    )
}

fn collapse(study: &Study, verdict: &RecipeVerdict) -> Option<Words> {
    let gaps: Vec<f64> = verdict
        .collapses
        .iter()
        .filter_map(|collapse| study.contrasts[collapse.contrast].pair.as_ref())
        .map(|pair| pair.bootstrap.difference)
        .collect();
    let smallest = gaps.iter().copied().reduce(f64::min)?;
    let largest = gaps.iter().copied().reduce(f64::max)?;
    let [from, to] = [smallest, largest].map(|gap| points(gap * 100.0));
    let range = if from == to { from } else { format!("{from} to {to}") };
    let range_ko = range.replace(" to ", "~");
    let (en, ko) = match verdict.collapse() {
        Finding::Holds => (
            format!(
                "LoRA collapses: it lies {range} points of accuracy below vanilla (the paper: 14.5 to \
                 21.4)."
            ),
            format!(
                "LoRA가 무너집니다. vanilla보다 정확도가 {range_ko}점 낮습니다(논문: 14.5~21.4)."
            ),
        ),
        Finding::Reversed => {
            let some =
                verdict.collapses.iter().any(|collapse| collapse.finding != Finding::Reversed);
            let (where_en, where_ko) = if some {
                ("LoRA does not collapse at every size", "LoRA가 모든 크기에서 무너지지는 않습니다")
            } else {
                ("LoRA does not collapse", "LoRA는 무너지지 않습니다")
            };
            (
                format!(
                    "{where_en}: it lies {range} points of accuracy below vanilla (the paper: 14.5 to \
                     21.4)."
                ),
                format!("{where_ko}. vanilla보다 정확도가 {range_ko}점 낮습니다(논문: 14.5~21.4)."),
            )
        }
        _ => (
            format!(
                "Whether LoRA collapses is not decided: it lies {range} points of accuracy below \
                 vanilla, by intervals that reach across 5 points."
            ),
            format!(
                "LoRA가 무너지는지는 판단할 수 없습니다. vanilla보다 {range_ko}점 낮고, 구간이 5점을 \
                 걸칩니다."
            ),
        ),
    };
    let gain = "A negative figure means that LoRA is ahead.";
    let gain_ko = "음수는 LoRA가 앞선다는 뜻입니다.";
    Some(if smallest < 0.0 {
        words(format!("{en} {gain}"), format!("{ko} {gain_ko}"))
    } else {
        words(en, ko)
    })
}

fn causes(study: &Study, verdict: &RecipeVerdict) -> Option<Words> {
    let single: Vec<&Cause> =
        verdict.causes.iter().filter(|cause| cause.is_single(study)).collect();
    if verdict.recipe != "paper" || verdict.collapse() != Finding::Holds {
        return None;
    }
    if single.is_empty() {
        return Some(words(
            "No run changes one key of that LoRA alone, so its cause cannot be told.",
            "그 LoRA에서 한 가지만 바꾼 실험이 없어 원인을 가릴 수 없습니다.",
        ));
    }
    let describe = |cause: &&Cause| {
        let factor = &study.contrasts[cause.contrast].factors[0];
        let key = key(&factor.key);
        let change = format!("{} → {}", factor.first, factor.second);
        let closed = cause.closed.map_or_else(
            || "–".into(),
            |closed| format!("{} %", points((closed * 100.0).round()).trim_end_matches(".0")),
        );
        words(
            format!("{} ({change}) closes {closed} of the gap", key.en),
            format!("{}({change})은(는) 차이의 {closed}를 메웁니다", key.ko),
        )
    };
    let list = |causes: Vec<&&Cause>| {
        let parts: Vec<Words> = causes.into_iter().map(describe).collect();
        words(
            parts.iter().map(|part| part.en.as_str()).collect::<Vec<_>>().join("; "),
            parts.iter().map(|part| part.ko.as_str()).collect::<Vec<_>>().join(", "),
        )
    };
    let (explain, not): (Vec<&&Cause>, Vec<&&Cause>) =
        single.iter().partition(|cause| cause.explains(study));
    let (explaining, other) = (list(explain.clone()), list(not.clone()));
    Some(match (explain.is_empty(), not.is_empty()) {
        (false, true) => words(
            format!("Changed alone, each of these explains half of it or more: {}.", explaining.en),
            format!("하나만 바꾸어도 절반 이상을 설명합니다: {}.", explaining.ko),
        ),
        (false, false) => words(
            format!(
                "Changed alone, this explains half of it or more: {}. This does not: {}.",
                explaining.en, other.en
            ),
            format!(
                "하나만 바꾸었을 때 절반 이상을 설명하는 것: {}. 그렇지 않은 것: {}.",
                explaining.ko, other.ko
            ),
        ),
        (true, _) => {
            let together = together(study, verdict);
            words(
                format!(
                    "None of the changes explains half of it alone: {}.{}",
                    other.en, together.en
                ),
                format!("하나만으로 절반을 설명하는 변화는 없습니다: {}.{}", other.ko, together.ko),
            )
        }
    })
}

/// The fewest keys that explain it together; nothing if none do.
fn together(study: &Study, verdict: &RecipeVerdict) -> Words {
    // Causes of a size stand in the order of how many keys they change.
    let several = |cause: &&Cause| !cause.is_single(study) && cause.explains(study);
    let fewest = verdict
        .causes
        .iter()
        .filter(several)
        .min_by_key(|cause| study.contrasts[cause.contrast].factors.len());
    let Some(cause) = fewest else { return words("", "") };
    let factors = &study.contrasts[cause.contrast].factors;
    let keys: Vec<Words> = factors.iter().map(|factor| key(&factor.key)).collect();
    let closed = points((cause.closed.unwrap_or_default() * 100.0).round());
    let closed = closed.trim_end_matches(".0");
    let list =
        |language: fn(&Words) -> &str| keys.iter().map(language).collect::<Vec<_>>().join(", ");
    words(
        format!(" Together, {} close {closed} % of it.", list(|key| &key.en)),
        format!(" {}을(를) 함께 바꾸면 {closed} %를 메웁니다.", list(|key| &key.ko)),
    )
}

/// A figure in points, with a minus sign that is one.
fn points(value: f64) -> String {
    format!("{value:.1}").replace('-', "−")
}

/// Which conclusion depends on the recipe.
fn survives(verdict: &Verdict) -> Option<Words> {
    let paper = verdict.paper()?;
    let tuned = verdict.recipes.iter().find(|recipe| recipe.recipe == "tuned")?;
    match (paper.collapse(), tuned.collapse()) {
        (Finding::Holds, Finding::Reversed) => Some(words(
            "LoRA's collapse is therefore a matter of the recipe, not of the method.",
            "따라서 LoRA가 무너지는 것은 방법이 아니라 설정의 문제입니다.",
        )),
        (Finding::Holds, Finding::Holds) => Some(words(
            "LoRA's collapse outlasts the tuning of learning rates.",
            "학습률을 조정해도 LoRA는 무너집니다.",
        )),
        _ => None,
    }
}

/// What the verdict cannot know.
pub(crate) fn caveats(study: &Study, verdict: &Verdict) -> Vec<Words> {
    let mut caveats = Vec::new();
    let seeds: Vec<usize> = verdict.recipes.iter().map(|recipe| recipe.seeds).collect();
    match seeds.iter().min() {
        Some(0) => caveats.push(words(
            "Some cells have no finished run.",
            "끝난 실험이 없는 조건이 있습니다.",
        )),
        Some(1) => caveats.push(words(
            "Some cells have one seed only: what is said there is of those trained models, not of the \
             methods, for another seed may differ by more than the interval.",
            "시드가 하나뿐인 조건이 있습니다. 그에 대한 결론은 그 모델에 대한 것이지 방법에 대한 것이 아닙니다.",
        )),
        Some(&fewest) if fewest < 5 => caveats.push(words(
            format!(
                "With {fewest} seeds, the sign-flip test over seeds cannot give a p below {}; the \
                 findings rest on the bootstrap over seeds and reviews and on McNemar's test.",
                0.5_f64.powi(fewest as i32 - 1)
            ),
            format!(
                "시드가 {fewest}개이면 시드에 대한 부호 뒤집기 검정의 p는 {}보다 작아질 수 없습니다. 결론은 시드와 \
                 리뷰에 대한 부트스트랩과 McNemar 검정을 따릅니다.",
                0.5_f64.powi(fewest as i32 - 1)
            ),
        )),
        _ => {}
    }
    let tested =
        study.cells.iter().flat_map(|cell| cell.answers()).map(|answers| answers.test.len());
    if let Some(reviews) = tested.min().filter(|&reviews| reviews < 10_000) {
        caveats.push(words(
            format!(
                "{} test reviews: differences below a point or two of accuracy drown in the choice of \
                 reviews.",
                with_thousands(reviews)
            ),
            format!(
                "테스트 리뷰가 {}개입니다. 1~2점보다 작은 차이는 리뷰의 선택에 묻힙니다.",
                with_thousands(reviews)
            ),
        ));
    }
    if study.paper_scale.is_some() {
        caveats.push(words(
            "These runs are not of the paper's model: a small Korean BERT, on fewer reviews. They can \
             speak of the order of methods and of why, not of the level of accuracy.",
            "논문의 모델이 아니라 더 적은 리뷰로 학습한 작은 한국어 BERT입니다. 방법의 순서와 그 이유는 말할 수 있지만 \
             정확도의 수준은 말할 수 없습니다.",
        ));
    }
    let chance: usize = study.cells.iter().map(|cell| cell.at_chance().len()).sum();
    let failed: usize = study.cells.iter().map(|cell| cell.failed().len()).sum();
    let missing: usize = study.cells.iter().map(|cell| cell.missing.len()).sum();
    if chance + failed + missing > 0 {
        caveats.push(words(
            format!(
                "Runs stuck at chance, which count like all others: {chance}. Failed: {failed}. Planned \
                 and not run: {missing}."
            ),
            format!(
                "우연 수준에 머문 실험 {chance}개는 다른 것과 똑같이 셉니다. 실패 {failed}개, 실행하지 않은 것 \
                 {missing}개."
            ),
        ));
    }
    caveats
}
