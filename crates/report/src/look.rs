//! How methods look: colour and marker.

use nsmc_eval::study::{CellKey, Study};
use nsmc_experiment::MethodKind;

use crate::palette::{
    ADAPTER, BASELINE, FUSION, LORA, LORA_SECOND, LORA_THIRD, OTHER, SERIES, VANILLA,
};
use crate::plot::{Look, Marker};

/// The look of each method of a study, the same in all of its plots: no two are the same, as long as
/// there are colours and markers.
pub(crate) struct Looks(Vec<(String, Look)>);

impl Looks {
    pub(crate) fn of(study: &Study) -> Self {
        let mut keys: Vec<&CellKey> = Vec::new();
        for key in study.cells.iter().map(|cell| &cell.key) {
            let plotted = !key.is_baseline() || key.method == MethodKind::Tfidf;
            if plotted && !keys.iter().any(|known| known.label == key.label) {
                keys.push(key);
            }
        }
        let mut taken: Vec<Look> = Vec::new();
        // What a method usually looks like goes to the first of that name, whatever stands before.
        let usual: Vec<Option<Look>> = keys
            .iter()
            .map(|key| {
                let look = usual(key.method, key.rank);
                let free = !taken.contains(&look);
                free.then(|| taken.push(look)).map(|()| look)
            })
            .collect();
        let looks = keys.into_iter().zip(usual).map(|(key, usual)| {
            let look = usual.unwrap_or_else(|| another(&mut taken));
            (key.label.clone(), look)
        });
        Self(looks.collect())
    }

    /// That of a cell of the study.
    pub(crate) fn get(&self, key: &CellKey) -> Look {
        let known = self.0.iter().find(|(label, _)| *label == key.label);
        known.map_or_else(|| usual(key.method, key.rank), |(_, look)| *look)
    }
}

/// What a method looks like unless another of the study looks so already; the paper's rows, too.
pub(crate) fn usual(method: MethodKind, rank: Option<usize>) -> Look {
    let (colour, marker) = match (method, rank) {
        (MethodKind::Vanilla, _) => (VANILLA, Marker::Circle),
        (MethodKind::AdapterFusion, _) => (FUSION, Marker::Square),
        (MethodKind::Lora, Some(64) | None) => (LORA, Marker::Triangle),
        (MethodKind::Lora, Some(32)) => (LORA_SECOND, Marker::Diamond),
        (MethodKind::Lora, Some(16)) => (LORA_THIRD, Marker::Inverted),
        (MethodKind::Lora, _) => (OTHER, Marker::Square),
        (MethodKind::Adapter, _) => (ADAPTER, Marker::Square),
        (MethodKind::Tfidf, _) => (BASELINE, Marker::Cross),
        (MethodKind::HeadOnly | MethodKind::Majority, _) => (OTHER, Marker::Diamond),
    };
    Look { colour, marker }
}

/// A look that is not taken, and takes it: of the colours the one that is used least, then of the
/// markers. When all are taken, one of those that the fewest have.
pub(crate) fn another(taken: &mut Vec<Look>) -> Look {
    let looks =
        SERIES.into_iter().flat_map(|colour| Marker::ALL.map(|marker| Look { colour, marker }));
    let uses = |look: &Look| {
        let count = |same: &dyn Fn(&Look) -> bool| taken.iter().filter(|other| same(other)).count();
        (
            count(&|other| other == look),
            count(&|other| other.colour == look.colour),
            count(&|other| other.marker == look.marker),
        )
    };
    let look = looks.min_by_key(uses).expect("there are colours and markers");
    taken.push(look);
    look
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use nsmc_eval::study::{Plan, PlannedRun};
    use nsmc_experiment::{Catalog, DatasetManifest, FileHashes, ModelManifest, Profile};

    use super::*;

    /// The cells of a profile of this repository.
    fn shipped(root: &Path, file: &Path) -> Study {
        let manifest = |folder: &str| root.join(folder).join("manifest.toml");
        let datasets = DatasetManifest::read(&manifest("datasets")).unwrap();
        let models = ModelManifest::read(&manifest("models")).unwrap();
        let hashes = FileHashes::default();
        let catalog = Catalog {
            root,
            datasets: &datasets,
            datasets_folder: Path::new("datasets"),
            models: &models,
            model_folder: &|_| None,
            adapters_folder: Path::new("models/adapters"),
            hashes: &hashes,
        };
        let profile = Profile::read(file).unwrap();
        let runs = profile
            .cells
            .iter()
            .chain(&profile.baselines)
            .map(|cell| PlannedRun::of(&profile.resolve(cell, 42, &[], catalog).unwrap()));
        let paper_scale = profile.paper_scale;
        let plan = Plan { profile: profile.name.clone(), paper_scale, runs: runs.collect() };
        Study::new(plan, Vec::new()).unwrap()
    }

    #[test]
    fn no_two_methods_of_a_shipped_profile_look_the_same() {
        let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
        let mut found = Vec::new();
        for entry in fs_err::read_dir(root.join("configs")).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "toml") {
                continue;
            }
            let study = shipped(root, &path);
            let Looks(looks) = Looks::of(&study);
            for (index, (label, look)) in looks.iter().enumerate() {
                let same = looks[..index].iter().find(|(_, other)| other == look);
                assert_eq!(same, None, "{}: {label} looks the same", path.display());
                let coloured = looks[..index].iter().find(|(_, other)| other.colour == look.colour);
                assert_eq!(coloured, None, "{}: {label} has one colour with it", path.display());
            }
            found.push((study.name, looks.len()));
        }
        found.sort();
        // mini has two fusions, the frozen model's classifier and a baseline beside them.
        for expected in [("mini", 6), ("mini-grid", 7), ("smoke", 5)] {
            let expected = (expected.0.to_owned(), expected.1);
            assert!(found.contains(&expected), "{expected:?} is not in {found:?}");
        }
    }

    #[test]
    fn the_papers_methods_look_as_its_rows_do_and_further_ranks_otherwise() {
        let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
        let mut study = shipped(root, &root.join("configs/mini-grid.toml"));
        // As many as there are, and those that come first first.
        for rank in (1..=50).rev().filter(|rank| ![32, 16].contains(rank)) {
            let mut cell = study.cells[0].clone();
            let key = &mut cell.key;
            (key.method, key.label, key.rank) =
                (MethodKind::Lora, format!("LoRA r={rank}"), Some(rank));
            study.cells.insert(0, cell);
        }
        let looks = Looks::of(&study);
        for cell in study.cells.iter().filter(|cell| cell.key.rank.is_none_or(|rank| rank == 64)) {
            if !cell.key.is_baseline() {
                assert_eq!(looks.get(&cell.key), usual(cell.key.method, cell.key.rank));
            }
        }
        let mut looks: Vec<Look> = looks.0.into_iter().map(|(_, look)| look).collect();
        let count = looks.len();
        let all = SERIES.len() * Marker::ALL.len();
        assert!(count > all, "{count} methods, {all} looks");
        looks.sort_by_key(|look| format!("{look:?}"));
        looks.dedup();
        assert_eq!(looks.len(), all, "no look is given twice before all are given");
    }
}
