//! Runs and results that come from elsewhere and were made to do harm, or are damaged: each is an
//! error that says what is wrong, and nothing is written where it should not be.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod fabricated;

use std::io::Write;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use nsmc_eval::EvaluatedRun;
use nsmc_eval::study::{Plan, PlannedRun, Study, TestSet, collect};
use nsmc_experiment::ExperimentConfig;
use serde_json::{Value, json};

/// One fabricated run in `runs`, and what is collected of it in `results`.
struct World {
    folder: tempfile::TempDir,
    config: ExperimentConfig,
    plan: Plan,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = fabricated::fusion(fabricated::config("paper", 500, 0));
        fabricated::run(&folder.path().join("runs"), &config, 0.8, 1.0);
        let plan =
            Plan { profile: "test".into(), paper_scale: None, runs: vec![PlannedRun::of(&config)] };
        Self { folder, config, plan }
    }

    fn collected() -> Self {
        let world = Self::new();
        collect(&world.plan, &world.runs(), &world.results()).unwrap();
        Study::read_results(&world.results()).unwrap();
        world
    }

    fn runs(&self) -> PathBuf {
        self.folder.path().join("runs")
    }

    fn results(&self) -> PathBuf {
        self.folder.path().join("results")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.runs().join(self.config.run_id()).join(name)
    }

    fn collected_run(&self) -> PathBuf {
        self.results().join(format!("runs/{}.json", self.config.run_id()))
    }

    /// What reading the run directory says; reading all of them says it, too.
    #[track_caller]
    fn run_refused(&self, expected: &str) {
        let study = Study::read_runs(&self.runs(), None).unwrap();
        let message = study.unreadable.join("\n");
        assert!(message.contains(expected), "{expected}\nis not in\n{message}");
        assert!(study.runs().is_empty());
    }

    #[track_caller]
    fn results_refused(&self, expected: &str) {
        let message = Study::read_results(&self.results()).unwrap_err().to_string();
        assert!(message.contains(expected), "{expected}\nis not in\n{message}");
    }
}

fn edit(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut json = serde_json::from_str(&fs_err::read_to_string(path).unwrap()).unwrap();
    change(&mut json);
    fs_err::write(path, json.to_string()).unwrap();
}

fn gzip(path: &Path, content: &[u8]) {
    let mut encoder = GzEncoder::new(fs_err::File::create(path).unwrap(), Compression::default());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap();
}

#[test]
fn a_run_whose_name_leads_elsewhere_is_collected_nowhere() {
    for name in ["../../escaped", "..", "a/b", "a.b", ""] {
        let world = World::new();
        edit(&world.file("record.json"), |record| record["run_id"] = json!(name));
        let message = collect(&world.plan, &world.runs(), &world.results()).unwrap_err();
        assert!(message.to_string().contains("`run_id`: expected a name"), "{message}");
        assert!(!world.folder.path().join("escaped.json").exists());
        assert!(!world.results().exists());
        world.run_refused("`run_id`: expected a name");
    }
}

#[test]
fn a_plan_whose_names_lead_elsewhere_is_refused() {
    let world = World::collected();
    let plan = world.results().join("plan.json");
    edit(&plan, |plan| plan["runs"][0]["run_id"] = json!("../runs/x"));
    world.results_refused("plan.json: `run_id`: expected a name");
}

#[test]
fn a_method_that_is_not_known_is_refused_with_its_key() {
    let expected = "`method`: unknown variant `prefix`, expected one of `vanilla`";
    let world = World::new();
    edit(&world.file("record.json"), |record| record["config"]["method"]["name"] = json!("prefix"));
    world.run_refused(&format!("record.json: not a run record: {expected}"));
    let world = World::collected();
    edit(&world.collected_run(), |run| {
        run["record"]["config"]["method"]["name"] = json!("prefix");
    });
    world.results_refused(&format!(".json: {expected}"));
    let world = World::collected();
    edit(&world.results().join("plan.json"), |plan| plan["runs"][0]["method"] = json!("prefix"));
    world.results_refused(&format!("plan.json: {expected}"));
}

#[test]
fn a_record_that_nothing_can_be_computed_with_is_refused() {
    let mut three_classes = serde_json::to_value(&World::new().config.data).unwrap();
    three_classes["labels"] = json!(["0", "1", "2"]);
    three_classes["label_names"] = json!(["bad", "fair", "good"]);
    for (key, value, expected) in [
        ("/config/evaluation/metric_batch_size", json!(0), "`metric_batch_size`"),
        ("/config/data/labels", json!([]), "`labels`: expected 2 to 1000 classes, found 0"),
        ("/config/data/labels", json!(["0"]), "`labels`: expected 2 to 1000 classes, found 1"),
        ("/config/data/labels", json!(vec![""; 1001]), "found 1001"),
        ("/config/data/label_names", json!(["a", "b", "c"]), "`label_names`: expected a name for"),
        ("/config/data/label_names", json!(["a"]), "each of 2 labels, found 1"),
        ("/results/epochs/1/epoch", json!(0), "`epochs`: expected epochs from 1 to 3, found 0"),
        ("/results/epochs/1/epoch", json!(u64::MAX), "expected epochs from 1 to 3, found 18446"),
        ("/results/adapter_stage/epochs/0/epoch", json!(4), "from 1 to 3, found 4"),
        ("/config/data", three_classes, "expected 3 classes"),
    ] {
        let world = World::new();
        edit(&world.file("record.json"), |record| {
            *record.pointer_mut(key).unwrap() = value.clone();
        });
        world.run_refused(expected);
        EvaluatedRun::read(&world.runs().join(world.config.run_id())).unwrap_err();
        let world = World::collected();
        edit(&world.collected_run(), |run| {
            *run["record"].pointer_mut(key).unwrap() = value.clone();
        });
        // Answers are held against the record's own classes.
        if expected != "expected 3 classes" {
            world.results_refused(expected);
        }
    }
}

#[test]
fn a_pre_training_is_known_by_its_record_and_not_by_its_name() {
    let world = World::new();
    let folder = world.runs().join("another-name");
    fs_err::create_dir(&folder).unwrap();
    fs_err::write(folder.join("record.json"), r#"{"config": {}, "metrics": []}"#).unwrap();
    let study = Study::read_runs(&world.runs(), None).unwrap();
    assert_eq!((study.runs().len(), study.unreadable), (1, Vec::new()));
    fs_err::rename(&folder, world.runs().join("pretraining-x")).unwrap();
    fs_err::write(world.runs().join("pretraining-x/record.json"), "{}").unwrap();
    let study = Study::read_runs(&world.runs(), None).unwrap();
    assert_eq!(study.unreadable.len(), 1, "{:?}", study.unreadable);
}

#[test]
fn attention_that_does_not_fit_its_adapters_is_refused() {
    for (key, value) in [
        ("mean", json!([0.5])),
        ("mean_first_token", json!([0.5, 0.25, 0.25])),
        ("layer", json!(u64::MAX)),
        ("adapters", json!([])),
    ] {
        let world = World::new();
        edit(&world.file("fusion_attention.json"), |layers| layers[1][key] = value.clone());
        world.run_refused("fusion_attention.json: layer");
        let world = World::collected();
        edit(&world.collected_run(), |run| run["fusion_attention"][1][key] = value.clone());
        world.results_refused("layer");
    }
}

#[test]
fn attention_at_a_place_that_no_layer_has_is_refused() {
    let expected = "unknown variant `embeddings`, expected `attention` or `output`";
    let world = World::new();
    edit(&world.file("fusion_attention.json"), |layers| layers[1]["place"] = json!("embeddings"));
    world.run_refused(&format!("fusion_attention.json: {expected}"));
    let world = World::collected();
    edit(&world.collected_run(), |run| {
        run["fusion_attention"][1]["place"] = json!("embeddings");
    });
    world.results_refused(expected);
}

#[test]
fn a_test_set_under_another_name_or_place_is_refused() {
    for name in ["../test-x", "", "0123456789", "zzzzzzzz", &"0".repeat(65), "한글"] {
        let world = World::collected();
        edit(&world.collected_run(), |run| run["test_set"] = json!(name));
        world.results_refused("`test_set`: expected 8 hex digits");
    }
}

#[test]
fn a_test_set_with_classes_that_the_run_does_not_have_is_refused() {
    let world = World::collected();
    let content = format!("id\tlabel\tin_training\n1\t{}\t0\n", usize::MAX);
    let path = world.results().join("test.tsv.gz");
    gzip(&path, content.as_bytes());
    let test = TestSet::read(&path).unwrap();
    assert!((test.majority_share() - 1.0).abs() < 1e-12);
    let name = test.sha256()[..8].to_owned();
    fs_err::rename(&path, world.results().join(format!("test-{name}.tsv.gz"))).unwrap();
    edit(&world.collected_run(), |run| run["test_set"] = json!(name));
    let answers = world.results().join(format!("predictions/{}.tsv.gz", world.config.run_id()));
    gzip(&answers, b"class\tconfidence\n1\t9000\n");
    world.results_refused("expected labels below 2");
}

#[test]
fn an_archive_that_unpacks_without_end_is_refused_before_it_fills_the_memory() {
    let world = World::collected();
    let answers = world.results().join(format!("predictions/{}.tsv.gz", world.config.run_id()));
    gzip(&answers, &vec![b'\n'; (64 << 20) + 1]);
    assert!(fs_err::metadata(&answers).unwrap().len() < 1 << 20);
    world.results_refused("unpacks to more than 64 MiB");
}

#[test]
fn a_prediction_file_has_a_bounded_number_of_classes() {
    let world = World::new();
    let logits =
        |text: &str| (0..1001).fold(String::new(), |row, class| format!("{row}\t{text}{class}"));
    let text = format!("id\tlabel\tin_training{}\n1\t0\t0{}\n", logits("logit_"), logits("0."));
    fs_err::write(world.file("predictions.tsv"), text).unwrap();
    world.run_refused("expected 2 to 1000 classes, found 1001");
}

#[test]
fn predictions_that_are_not_those_of_the_record_are_in_no_table() {
    type Change = fn(&str) -> String;
    let anew = "delete the run directory: the command that made it makes it anew, as `cargo xtask train` \
                does with `--again`";
    let changes: [(Change, &str); 5] = [
        (
            |text| text.replacen("\t0\t0\t", "\t1\t0\t", 1),
            "not the predictions that record.json is of",
        ),
        (
            |text| text.trim_end().rsplit_once('\n').unwrap().0.to_owned() + "\n",
            "expected 2000 predictions, one per review that the run tested (record.json), found 1999",
        ),
        (|text| format!("{text}1\t1\t0\t0\t1\n"), "expected 2000 predictions"),
        (|text| text.lines().next().unwrap().to_owned() + "\n", "predictions.tsv: no predictions"),
        // Cut within a line: its logits are gone.
        (|text| text[..text.rfind("\t0\t").unwrap()].to_owned(), "predictions.tsv:2001: "),
    ];
    for (change, expected) in changes {
        let world = World::new();
        let text = fs_err::read_to_string(world.file("predictions.tsv")).unwrap();
        let changed = change(&text);
        assert_ne!(changed, text);
        fs_err::write(world.file("predictions.tsv"), changed).unwrap();
        world.run_refused(expected);
        world.run_refused(anew);
        let run = world.runs().join(world.config.run_id());
        EvaluatedRun::read(&run).unwrap_err();
        collect(&world.plan, &world.runs(), &world.results()).unwrap_err();
        assert!(!world.results().exists());
        // Back again, it is the run's.
        fs_err::write(world.file("predictions.tsv"), text).unwrap();
        EvaluatedRun::read(&run).unwrap();
    }
    let world = World::new();
    fs_err::remove_file(world.file("predictions.tsv")).unwrap();
    world.run_refused("predictions.tsv: no such file, but record.json says that the run is done");
    world.run_refused(anew);
}

#[test]
fn what_is_collected_of_a_run_is_of_as_many_reviews_as_it_tested() {
    let world = World::collected();
    edit(&world.collected_run(), |run| run["record"]["results"]["test_reviews"] = json!(1999));
    world.results_refused(
        "`test_reviews`: expected 2000, as many as its test set has reviews, found 1999",
    );
    // The hash is that of the run directory's file, which has logits.
    let world = World::collected();
    let hash = json!("0".repeat(64));
    edit(&world.collected_run(), |run| run["record"]["results"]["predictions_sha256"] = hash);
    assert_eq!(Study::read_results(&world.results()).unwrap().runs().len(), 1);
}

#[test]
fn a_run_under_another_runs_name_is_not_taken_for_it() {
    let world = World::collected();
    edit(&world.collected_run(), |run| run["record"]["run_id"] = json!("another"));
    world.results_refused("`run_id`: expected \"adapterfusion-500-s0-");
    let world = World::new();
    edit(&world.file("record.json"), |record| record["run_id"] = json!("another"));
    let collection = collect(&world.plan, &world.runs(), &world.results()).unwrap();
    assert_eq!(collection.missing, [world.config.run_id()]);
    assert!(!world.results().exists());
}

#[test]
fn runs_that_differ_in_more_than_their_seeds_are_no_cell() {
    let world = World::new();
    let other = fabricated::config("paper", 1000, 1);
    fabricated::run(&world.runs(), &other, 0.8, 1.0);
    let mut plan = world.plan.clone();
    let cell = plan.runs[0].cell.clone();
    plan.runs.push(PlannedRun { cell, ..PlannedRun::of(&other) });
    let message = Study::read_runs(&world.runs(), Some(plan)).unwrap_err().to_string();
    assert!(message.contains("as seeds of one configuration, but they differ"), "{message}");
}

#[test]
fn a_plan_with_strange_numbers_and_names_is_shown_all_the_same() {
    let world = World::collected();
    let plan = world.results().join("plan.json");
    edit(&plan, |plan| {
        plan["paper_scale"] = json!(u64::MAX);
        let mut twin = plan["runs"][0].clone();
        twin["cell"] = json!("한글");
        twin["identity"] = json!("");
        plan["runs"].as_array_mut().unwrap().push(twin);
    });
    let study = Study::read_results(&world.results()).unwrap();
    assert!(study.markdown().contains("한글"), "{}", study.markdown());
}

#[test]
fn a_copy_of_a_run_counts_once_and_an_old_identity_is_the_runs() {
    let world = World::new();
    let copy = world.runs().join("copy");
    fs_err::create_dir(&copy).unwrap();
    for file in ["record.json", "predictions.tsv"] {
        fs_err::copy(world.file(file), copy.join(file)).unwrap();
        // As if computed by a version whose configurations had fewer keys.
        if file == "record.json" {
            for path in [world.file(file), copy.join(file)] {
                edit(&path, |record| record["identity"] = json!("0".repeat(64)));
            }
        }
    }
    let study = Study::read_runs(&world.runs(), None).unwrap();
    let [cell] = study.cells.as_slice() else { panic!("{} cells", study.cells.len()) };
    assert_eq!((cell.runs.len(), cell.missing.len()), (1, 0));
}
