//! A study as one HTML page: the verdict in words, made from the numbers, then what it rests on.
//!
//! The page holds all it needs: no script, no font, no image from elsewhere. Everything on it but names
//! and numbers is there in English and in Korean, plots and tables too; two radio buttons choose.

mod attention;
mod disagreement;
mod figures;
mod language;
mod look;
mod page;
mod palette;
mod particle;
mod plot;
mod ranking;
mod time;
mod words;

#[cfg(test)]
#[path = "../../eval/tests/fabricated/mod.rs"]
pub(crate) mod fabricated;

use std::collections::BTreeMap;

use nsmc_eval::study::Study;
use nsmc_experiment::DataConfig;

pub use figures::Figure;
use language::Language;

/// What a report is made of.
#[derive(Clone, Debug)]
pub struct Report<'a> {
    /// The runs.
    pub study: &'a Study,
    /// The test reviews' texts by their ids, where the test file is at hand.
    pub texts: BTreeMap<String, String>,
}

impl Report<'_> {
    /// The page.
    pub fn html(&self) -> String {
        page::render(self)
    }

    /// Its plots, each for a file of its own: in English, and under `NAME.ko` in Korean.
    pub fn plots(&self) -> Vec<Figure> {
        let style = palette::style_sheet();
        let sections = figures::sections(self.study);
        let mut figures = Vec::new();
        let all = sections.into_iter().flat_map(|section| section.figures);
        for Figure { name, title, svg, axes } in all {
            // Alone, a plot brings its colours and its ground.
            let style = format!("<style>{style} svg{{background:var(--paper)}}</style>");
            let end = svg.find('>').map_or(0, |end| end + 1);
            let svg = format!("{}\n{style}{}", &svg[..end], &svg[end..]);
            for (name, language) in
                [(name.clone(), Language::English), (format!("{name}.ko"), Language::Korean)]
            {
                let svg = language::in_one(&svg, language);
                figures.push(Figure { name, title: title.clone(), svg, axes: axes.clone() });
            }
        }
        figures
    }

    /// The ids of the reviews whose texts the page quotes, and the data that they are of; none if it
    /// quotes none.
    pub fn quoted(study: &Study) -> Option<(&DataConfig, Vec<String>)> {
        let ids: Vec<String> =
            disagreement::disagreements(study).into_iter().map(|review| review.id).collect();
        let config = disagreement::compared(study).first()?.config()?;
        (!ids.is_empty()).then_some((&config.data, ids))
    }
}
