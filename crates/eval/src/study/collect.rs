use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nsmc_experiment::{
    ExperimentConfig, FusionAttention, MethodKind, Rows, RunRecord, RunStatus, write_durably,
};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use super::run::check_attention;
use super::{Answers, StudyRun, TestSet, cell_identity};
use crate::EvalError;
use crate::results::setting;

/// The runs that a study is made of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The profile, or the folder that runs were found in.
    pub profile: String,
    /// A cell stands for the paper's at so many times its training reviews.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paper_scale: Option<usize>,
    /// In the order they are run.
    pub runs: Vec<PlannedRun>,
}

/// One run of a plan. A run may stand for more than one recipe, where those agree on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedRun {
    /// [`ExperimentConfig::run_id`].
    pub run_id: String,
    /// [`ExperimentConfig::identity`].
    pub identity: String,
    /// [`cell_identity`].
    pub cell: String,
    /// The recipe; empty if there is none.
    pub recipe: String,
    /// The method.
    #[serde(deserialize_with = "method")]
    pub method: MethodKind,
    /// The method as tables show it.
    pub label: String,
    /// LoRA's rank.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rank: Option<usize>,
    /// Training reviews.
    pub train_size: Rows,
    /// The seed.
    pub seed: u64,
    /// Model and test set, in words.
    pub setting: String,
}

/// A method, or an error with the key.
fn method<'de, D: Deserializer<'de>>(deserializer: D) -> Result<MethodKind, D::Error> {
    let method = MethodKind::deserialize(deserializer);
    method.map_err(|error| D::Error::custom(format!("`method`: {error}")))
}

impl PlannedRun {
    /// The run of a configuration.
    pub fn of(config: &ExperimentConfig) -> Self {
        Self {
            run_id: config.run_id(),
            identity: config.identity(),
            cell: cell_identity(config),
            recipe: config.recipe.clone(),
            method: config.method.kind(),
            label: config.method.label(),
            rank: config.method.rank(),
            train_size: config.data.train_size,
            seed: config.seed,
            setting: setting(config),
        }
    }
}

impl Plan {
    /// The plan's file in a folder of collected results.
    pub const FILE: &'static str = "plan.json";

    /// The plan that runs found in a folder amount to. A run that is there twice counts once, and a
    /// trial not at all: what was chosen by is not reported.
    pub fn of_runs(name: String, runs: &[StudyRun]) -> Self {
        let mut seen = BTreeSet::new();
        let records = runs.iter().map(|run| &run.record);
        let planned = records.filter(|record| !record.config.is_trial()).filter(|record| {
            // By the record's own words: those of an earlier version are not what this one computes.
            seen.insert(&record.identity)
        });
        let planned = planned.map(|record| PlannedRun {
            run_id: record.run_id.clone(),
            identity: record.identity.clone(),
            ..PlannedRun::of(&record.config)
        });
        Self { profile: name, paper_scale: None, runs: planned.collect() }
    }

    /// Reads the plan's file.
    pub fn read(path: &Path) -> Result<Self, EvalError> {
        let plan: Self = read_json(path)?;
        for run in &plan.runs {
            RunRecord::check_run_id(&run.run_id)
                .map_err(|message| EvalError::File { path: path.into(), message })?;
        }
        Ok(plan)
    }
}

/// What [`collect`] found and did not find.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collection {
    /// Runs found.
    pub runs: Vec<String>,
    /// Of those, runs that failed; they are collected as failed.
    pub failed: Vec<String>,
    /// Runs of the plan without a record.
    pub missing: Vec<String>,
    /// Whether anything was written. It is not where no run is found, or of a plan with trained methods
    /// the baselines alone: those are the same whatever is trained and with whatever seeds, and so say
    /// nothing of which runs were meant.
    pub written: bool,
}

/// How much of a test set's sha256 is in its file's name.
const TEST_DIGITS: usize = 8;

/// Whether a test set can be called so.
fn is_test_set(name: &str) -> bool {
    name.len() == TEST_DIGITS && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Where the parts of collected results lie in their folder.
#[derive(Clone, Debug)]
pub struct Collected {
    folder: PathBuf,
}

/// A run's file in a folder of collected results.
#[derive(Serialize, Deserialize)]
struct CollectedRun {
    /// First digits of the test set's sha256, as in its file's name; none if the run failed.
    test_set: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    fusion_attention: Vec<FusionAttention>,
    /// `record.json`: what was found, the learning curve, the configuration.
    record: RunRecord,
}

impl Collected {
    /// Of the results in `folder`.
    pub fn of(folder: &Path) -> Self {
        Self { folder: folder.into() }
    }

    /// A run's record.
    pub fn record(&self, run_id: &str) -> PathBuf {
        self.folder.join("runs").join(format!("{run_id}.json"))
    }

    fn answers(&self, run_id: &str) -> PathBuf {
        self.folder.join("predictions").join(format!("{run_id}.tsv.gz"))
    }

    fn test(&self, name: &str) -> PathBuf {
        self.folder.join(format!("test-{name}.tsv.gz"))
    }

    /// Reads a run; `tests` holds the test sets read before.
    pub(super) fn read(
        &self,
        run_id: &str,
        tests: &mut BTreeMap<String, Arc<TestSet>>,
    ) -> Result<StudyRun, EvalError> {
        let path = self.record(run_id);
        let CollectedRun { test_set, fusion_attention, record } = read_json(&path)?;
        let refuse = |message| EvalError::File { path: self.record(run_id), message };
        record.check().map_err(refuse)?;
        if record.run_id != run_id {
            let found = &record.run_id;
            return Err(refuse(format!("`run_id`: expected \"{run_id}\", found \"{found}\"")));
        }
        check_attention(&fusion_attention, &path)?;
        let mut answers = None;
        if let Some(name) = test_set {
            if !is_test_set(&name) {
                return Err(refuse(format!(
                    "`test_set`: expected {TEST_DIGITS} hex digits, found {name:?}"
                )));
            }
            let path = self.test(&name);
            let test = match tests.get(&name) {
                Some(test) => test.clone(),
                None => {
                    let test = Arc::new(TestSet::read(&path)?);
                    if !test.sha256().starts_with(&name) {
                        let message = format!("not the test set {name}: its sha256 is another");
                        return Err(EvalError::File { path, message });
                    }
                    tests.insert(name, test.clone());
                    test
                }
            };
            let num_labels = record.config.data.labels.len();
            let read = Answers::read(&self.answers(run_id), test, num_labels)?;
            // Its predictions are held against their hash when it is collected; without logits, what
            // is kept of them has another.
            if let Some(results) = &record.results
                && results.test_reviews != read.answers.len()
            {
                return Err(refuse(format!(
                    "`test_reviews`: expected {}, as many as its test set has reviews, found {}; \
                     `cargo xtask results` collects the run anew from its run directory",
                    read.answers.len(),
                    results.test_reviews
                )));
            }
            answers = Some(read);
        }
        Ok(StudyRun::new(record, answers, fusion_attention))
    }

    /// A run that was collected when it had come to its end.
    fn success(&self, run_id: &str, identity: &str) -> Result<Option<CollectedRun>, EvalError> {
        let path = self.record(run_id);
        if !path.is_file() {
            return Ok(None);
        }
        let run: CollectedRun = read_json(&path)?;
        let is_it = run.record.identity == identity && run.record.status == RunStatus::Success;
        Ok(is_it.then_some(run))
    }

    /// Writes a run; gives the name of its test set.
    fn write(&self, run: &StudyRun) -> Result<Option<String>, EvalError> {
        let mut test_set = None;
        if let Some(answers) = &run.answers {
            let name = answers.test.sha256()[..TEST_DIGITS].to_owned();
            let path = self.test(&name);
            if !path.is_file() {
                answers.test.write(&path)?;
            }
            answers.write(&self.answers(&run.record.run_id))?;
            test_set = Some(name);
        }
        let record = RunRecord { config: run.record.config.without_paths(), ..run.record.clone() };
        let fusion_attention = run.fusion_attention.clone();
        let run = CollectedRun { test_set, fusion_attention, record };
        write_json(&self.record(&run.record.run_id), &run)?;
        Ok(run.test_set)
    }
}

/// Collects the runs of `plan` from the run directories in `runs` into `folder`. Runs that were
/// collected before and are no longer in `runs`, or failed there since, stay; those that are not of the
/// plan are removed, and the test sets of none.
///
/// Where no run of the plan is found but those of baselines, or one cannot be read, what was collected
/// before stays as it is.
pub fn collect(plan: &Plan, runs: &Path, folder: &Path) -> Result<Collection, EvalError> {
    let collected = Collected::of(folder);
    let has_record = |id: &str| runs.join(id).join("record.json").is_file();
    let parts = ["runs", "predictions"].map(|part| folder.join(part));
    let mut collection = Collection::default();
    let mut tests = BTreeMap::new();
    let (mut read, mut test_sets) = (Vec::new(), BTreeSet::new());
    for planned in &plan.runs {
        let id = &planned.run_id;
        if collection.runs.contains(id) || collection.missing.contains(id) {
            continue;
        }
        if has_record(id) {
            let run = StudyRun::read(&runs.join(id), &mut tests)?;
            if (&run.record.run_id, &run.record.identity) == (id, &planned.identity) {
                if let RunStatus::Failed { error } = &run.record.status {
                    let kept = collected.success(id, &planned.identity)?;
                    let stays = if kept.is_some() {
                        "; it came to its end before, and that stays"
                    } else {
                        ""
                    };
                    collection.failed.push(format!("{id}: {error}{stays}"));
                    if let Some(kept) = kept {
                        test_sets.extend(kept.test_set);
                        collection.runs.push(id.clone());
                        continue;
                    }
                }
                read.push(run);
                collection.runs.push(id.clone());
                continue;
            }
        }
        if collected.record(id).is_file() {
            let run: CollectedRun = read_json(&collected.record(id))?;
            test_sets.extend(run.test_set);
            collection.runs.push(id.clone());
        } else {
            collection.missing.push(id.clone());
        }
    }
    let found = |planned: &PlannedRun| collection.runs.contains(&planned.run_id);
    let mut trained = plan.runs.iter().filter(|planned| !planned.method.is_baseline()).peekable();
    if collection.runs.is_empty() || trained.peek().is_some() && !trained.any(found) {
        return Ok(collection);
    }
    collection.written = true;
    parts.iter().try_for_each(fs_err::create_dir_all)?;
    for run in &read {
        test_sets.extend(collected.write(run)?);
    }
    // Before anything is removed: whatever comes between, the plan's runs are there.
    write_json(&folder.join(Plan::FILE), plan)?;
    for part in parts.iter().filter(|part| part.is_dir()) {
        remove_files(part, |name| {
            let id = name.split('.').next().unwrap_or_default();
            !collection.runs.iter().any(|run| run == id)
        })?;
    }
    remove_files(folder, |name| {
        let test_set = name.strip_prefix("test-").and_then(|name| name.strip_suffix(".tsv.gz"));
        test_set.is_some_and(|name| is_test_set(name) && !test_sets.contains(name))
    })?;
    Ok(collection)
}

/// Removes the files of a folder, but not of those in it, whose name is `unwanted`.
fn remove_files(folder: &Path, unwanted: impl Fn(&str) -> bool) -> Result<(), EvalError> {
    for entry in fs_err::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_file() && unwanted(&name) {
            fs_err::remove_file(&path)?;
        }
    }
    Ok(())
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, EvalError> {
    let text = fs_err::read_to_string(path)?;
    serde_json::from_str(&text).map_err(|reason| EvalError::Json { path: path.into(), reason })
}

/// Writes a file that appears whole or not at all, and is on the disk when others are removed for it.
fn write_json(path: &Path, value: &impl Serialize) -> Result<(), EvalError> {
    let text = serde_json::to_string_pretty(value).expect("plain data is representable in JSON");
    Ok(write_durably(path, text + "\n")?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::study::{Study, fabricated};

    #[test]
    fn results_say_what_the_runs_say_and_name_no_place_of_the_machine() {
        let folder = tempfile::tempdir().unwrap();
        let (runs, results) = (folder.path().join("runs"), folder.path().join("results"));
        let configs = fabricated::grid(&runs);
        let mut planned: Vec<PlannedRun> = configs.iter().map(PlannedRun::of).collect();
        planned.push(PlannedRun::of(&fabricated::config("paper", 250, 0)));
        let plan = Plan { profile: "test".into(), paper_scale: Some(100), runs: planned };
        let collection = collect(&plan, &runs, &results).unwrap();
        assert_eq!(collection.runs.len(), configs.len());
        let [failed] = collection.failed.as_slice() else { panic!("one run failed") };
        assert!(failed.contains("out of memory"), "{failed}");
        let [missing] = collection.missing.as_slice() else { panic!("one run was not made") };
        assert!(missing.starts_with("vanilla-250-s0-"), "{missing}");

        let from_runs = Study::read_runs(&runs, Some(plan.clone())).unwrap();
        let from_results = Study::read_results(&results).unwrap();
        assert_eq!(from_runs.csv(), from_results.csv());
        assert_eq!(from_runs.markdown(), from_results.markdown());
        for config in &configs {
            let text = fs_err::read_to_string(
                results.join("runs").join(format!("{}.json", config.run_id())),
            );
            assert!(!text.unwrap().contains("/place/of/this/machine"));
        }
        // Again, without the runs: what was collected stays. Of another plan: it goes.
        fs_err::remove_dir_all(&runs).unwrap();
        assert_eq!(collect(&plan, &runs, &results).unwrap().runs, collection.runs);
        let less = Plan { runs: plan.runs[..3].to_vec(), ..plan };
        assert_eq!(collect(&less, &runs, &results).unwrap().runs.len(), 3);
        assert_eq!(fs_err::read_dir(results.join("predictions")).unwrap().count(), 3);
    }

    /// Every file in a folder and those in it, with what it holds.
    fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut files = BTreeMap::new();
        for entry in fs_err::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                files.extend(self::files(&path));
            } else {
                files.insert(path.clone(), fs_err::read(&path).unwrap());
            }
        }
        files
    }

    #[test]
    fn what_was_collected_stays_as_it_is_where_no_run_is_found_or_one_cannot_be_read() {
        let folder = tempfile::tempdir().unwrap();
        let (runs, results) = (folder.path().join("runs"), folder.path().join("results"));
        let configs = fabricated::grid(&runs);
        let plan_of = |configs: &[ExperimentConfig]| Plan {
            profile: "test".into(),
            paper_scale: None,
            runs: configs.iter().map(PlannedRun::of).collect(),
        };
        let nowhere = folder.path().join("nowhere");
        let plan = plan_of(&configs[..2]);
        let nothing = collect(&plan, &nowhere, &results).unwrap();
        assert_eq!((nothing.runs.len(), nothing.missing.len(), nothing.written), (0, 2, false));
        assert!(!results.exists());

        collect(&plan, &runs, &results).unwrap();
        let before = files(&results);
        assert!(before.len() > 4, "{:?}", before.keys());
        // Of another plan, as with a forgotten `--set`.
        let other = plan_of(&[fabricated::config("paper", 250, 0)]);
        assert_eq!(collect(&other, &runs, &results).unwrap().missing.len(), 1);
        assert_eq!(files(&results), before);
        // A baseline is that of any such plan: it is there, before and after the runs are gone.
        let baseline = fabricated::tfidf(configs[0].clone());
        fabricated::run(&runs, &baseline, 0.8, 1.0);
        let with_baseline = [&configs[..2], std::slice::from_ref(&baseline)].concat();
        assert!(collect(&plan_of(&with_baseline), &runs, &results).unwrap().written);
        let before = files(&results);
        let other = plan_of(&[fabricated::config("paper", 250, 0), baseline.clone()]);
        for runs in [&runs, &nowhere] {
            let collection = collect(&other, runs, &results).unwrap();
            let found = (collection.runs.as_slice(), collection.missing.len());
            assert_eq!(found, (&[baseline.run_id()][..], 1));
            assert!(!collection.written);
            assert_eq!(files(&results), before);
        }
        // Where nothing else is wanted, it is what was meant.
        let alone = folder.path().join("alone");
        assert!(collect(&plan_of(&[baseline]), &runs, &alone).unwrap().written);
        assert!(alone.join(Plan::FILE).is_file());
        // The last of three cannot be read; the first of them is another than before.
        fabricated::run(&runs, &configs[0], 0.6, 1.0);
        fs_err::write(runs.join(configs[2].run_id()).join("record.json"), "{").unwrap();
        collect(&plan_of(&configs[..3]), &runs, &results).unwrap_err();
        assert_eq!(files(&results), before);
    }

    #[test]
    fn a_test_set_stays_as_long_as_a_collected_run_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let (runs, results) = (folder.path().join("runs"), folder.path().join("results"));
        let configs = [0, 1].map(|seed| fabricated::config("paper", 500, seed));
        for config in &configs {
            fabricated::run(&runs, config, 0.8, 1.0);
        }
        let planned = configs.iter().map(PlannedRun::of).collect();
        let plan = Plan { profile: "test".into(), paper_scale: None, runs: planned };
        let tests = || -> Vec<String> {
            collect(&plan, &runs, &results).unwrap();
            Study::read_results(&results).unwrap();
            let names = fs_err::read_dir(&results).unwrap();
            let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
            names.filter(|name| name.starts_with("test-")).collect()
        };
        let first = tests();
        assert_eq!(first.len(), 1);
        // The first run is no longer there, the second is tested on other reviews.
        fs_err::remove_dir_all(runs.join(configs[0].run_id())).unwrap();
        let other_reviews = |config: &ExperimentConfig| {
            let path = runs.join(config.run_id()).join("predictions.tsv");
            let text = fs_err::read_to_string(&path).unwrap();
            fabricated::predicts(&runs, config, &text.replace("\n900", "\n800"));
        };
        other_reviews(&configs[1]);
        assert_eq!(tests().len(), 2);
        fabricated::run(&runs, &configs[0], 0.8, 1.0);
        other_reviews(&configs[0]);
        let last = tests();
        assert!(last.len() == 1 && last != first, "{last:?}");
    }

    #[test]
    fn a_run_that_came_to_its_end_stays_when_it_is_begun_anew_and_fails() {
        let folder = tempfile::tempdir().unwrap();
        let (runs, results) = (folder.path().join("runs"), folder.path().join("results"));
        let configs = [0, 1].map(|seed| fabricated::config("paper", 500, seed));
        fabricated::run(&runs, &configs[0], 0.8, 1.0);
        fabricated::failed(&runs, &configs[1], "out of memory");
        let planned = configs.iter().map(PlannedRun::of).collect();
        let plan = Plan { profile: "test".into(), paper_scale: None, runs: planned };
        collect(&plan, &runs, &results).unwrap();
        let before = files(&results);
        fs_err::remove_dir_all(runs.join(configs[0].run_id())).unwrap();
        fabricated::failed(&runs, &configs[0], "interrupted: a signal asked for it");
        let collection = collect(&plan, &runs, &results).unwrap();
        assert_eq!(files(&results), before);
        let [stays, failed] = collection.failed.as_slice() else {
            panic!("{:?}", collection.failed)
        };
        assert!(
            stays.ends_with("asked for it; it came to its end before, and that stays"),
            "{stays}"
        );
        assert!(failed.ends_with("out of memory"), "{failed}");
        // One that failed before gives way.
        fabricated::run(&runs, &configs[1], 0.8, 1.0);
        collect(&plan, &runs, &results).unwrap();
        assert_ne!(files(&results), before);
        assert!(Study::read_results(&results).unwrap().runs().len() == 2);
    }

    #[test]
    fn a_folder_among_the_results_stays_and_is_in_no_ones_way() {
        let folder = tempfile::tempdir().unwrap();
        let (runs, results) = (folder.path().join("runs"), folder.path().join("results"));
        let configs = fabricated::grid(&runs);
        let planned = configs.iter().map(PlannedRun::of).collect();
        let mut plan = Plan { profile: "test".into(), paper_scale: None, runs: planned };
        collect(&plan, &runs, &results).unwrap();
        let others = ["runs", "predictions"].map(|part| results.join(part).join(".checkpoints"));
        for other in &others {
            fs_err::create_dir(other).unwrap();
        }
        plan.runs.truncate(3);
        collect(&plan, &runs, &results).unwrap();
        assert_eq!(Plan::read(&results.join(Plan::FILE)).unwrap(), plan);
        assert!(others.iter().all(|other| other.is_dir()));
        let left = fs_err::read_dir(results.join("runs")).unwrap().count();
        assert_eq!(left, 4, "three runs and the folder");
    }
}
