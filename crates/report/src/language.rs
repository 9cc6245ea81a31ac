//! Two languages in one plot.
//!
//! plotters draws a text once. Both languages go into it, and [`in_both`] makes two elements of it, of
//! which the page's style sheet shows one; [`in_one`] keeps one, for a plot that stands alone.

use nsmc_eval::Words;

/// Stands between the languages: of Unicode's private use, which no text has.
const BETWEEN: char = '\u{E000}';

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Language {
    English,
    Korean,
}

/// What plotters is to draw.
pub(crate) fn drawn(Words { en, ko }: &Words) -> String {
    let [en, ko] = [en, ko].map(|text| text.replace(BETWEEN, ""));
    if en == ko { en } else { format!("{en}{BETWEEN}{ko}") }
}

/// Every text of two languages as two elements.
pub(crate) fn in_both(svg: &str) -> String {
    texts(svg, |attributes, en, ko| {
        format!(
            "<text class=\"en\" lang=\"en\"{attributes}>{en}</text>\n\
             <text class=\"ko\" lang=\"ko\"{attributes}>{ko}</text>"
        )
    })
}

/// Every text in one language.
pub(crate) fn in_one(svg: &str, language: Language) -> String {
    texts(svg, |attributes, en, ko| {
        let text = if language == Language::English { en } else { ko };
        format!("<text{attributes}>{text}</text>")
    })
}

fn texts(svg: &str, element: impl Fn(&str, &str, &str) -> String) -> String {
    const END: &str = "</text>";
    let mut out = String::with_capacity(svg.len());
    let mut rest = svg;
    while let Some(start) = rest.find("<text") {
        let (before, from) = rest.split_at(start);
        let Some(end) = from.find(END) else { break };
        let (text, after) = from.split_at(end);
        out += before;
        let parts = text["<text".len()..].split_once('>');
        match parts.and_then(|(attributes, text)| Some((attributes, text.split_once(BETWEEN)?))) {
            Some((attributes, (en, ko))) => out += &element(attributes, en.trim(), ko.trim()),
            None => {
                out += text;
                out += END;
            }
        }
        rest = &after[END.len()..];
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_of_two_languages_becomes_two_elements_in_the_same_place() {
        let drawn = drawn(&Words::new("accuracy", "정확도"));
        let svg = format!(
            "<svg>\n<text x=\"3\">\n{drawn}\n</text>\n<text x=\"4\">\n0.5\n</text>\n</svg>"
        );
        assert_eq!(
            in_both(&svg),
            "<svg>\n<text class=\"en\" lang=\"en\" x=\"3\">accuracy</text>\n\
             <text class=\"ko\" lang=\"ko\" x=\"3\">정확도</text>\n<text x=\"4\">\n0.5\n</text>\n</svg>"
        );
        let korean = in_one(&svg, Language::Korean);
        assert!(korean.contains("<text x=\"3\">정확도</text>") && !korean.contains("accuracy"));
        let english = in_one(&svg, Language::English);
        assert!(english.contains("<text x=\"3\">accuracy</text>") && !english.contains("정확도"));
    }

    #[test]
    fn a_text_that_is_the_same_in_both_stays_one() {
        assert_eq!(drawn(&"LoRA r=16".into()), "LoRA r=16");
        assert_eq!(drawn(&Words::new("a\u{E000}b", "a\u{E000}b")), "ab");
    }
}
