//! Baselines through the program: run directories like all others, without a model.

use nsmc_eval::Predictions;
use nsmc_experiment::RunRecord;

use crate::world::World;

const TFIDF: &str = "[method]\nname = \"tfidf\"\nngram_range = [1, 3]\nmin_df = 2\n\
                     sublinear_tf = true\nc = 3.0\ntol = 1e-5\nmax_iter = 200\n";

fn accuracy(world: &World, run: &str) -> f64 {
    let predictions = Predictions::read(&world.path(run).join("predictions.tsv")).unwrap();
    let right = predictions.rows.iter().filter(|row| row.class() == row.label).count();
    right as f64 / predictions.rows.len() as f64
}

#[test]
fn a_baseline_leaves_a_run_that_is_verified_and_depends_on_the_data_alone() {
    let world = World::new();
    let tfidf = world.config_with(TFIDF);
    let ran = world.train(&tfidf, "tfidf");
    assert!(ran.success && ran.stdout.contains("Baseline: TF-IDF"), "{}{}", ran.stdout, ran.stderr);
    // One word decides the label; one test review is empty.
    assert!(accuracy(&world, "tfidf") > 0.97);
    let other =
        tfidf.replace("seed = 7", "seed = 8").replace("3e-3", "1e-3").replace("= 16", "= 8");
    assert!(world.train(&other, "other").success);
    assert_eq!(world.read("tfidf/predictions.tsv"), world.read("other/predictions.tsv"));
    let record = |run: &str| RunRecord::read(&world.path(run).join("record.json")).unwrap();
    assert_eq!(record("tfidf").identity, record("other").identity);
    let results = record("tfidf").results.unwrap();
    // As every method has it: a tenth of the file is held out.
    assert_eq!((results.train_reviews, results.validation_reviews), (180, 24));
    assert!(results.epochs.is_empty() && results.trainable_parameters > 100);

    let majority = world.config_with("[method]\nname = \"majority\"\n");
    assert!(world.train(&majority, "majority").success);
    assert!((accuracy(&world, "majority") - 0.5).abs() < 1e-9);
    let ran = world.nsmc(&["verify", "tfidf", "majority"]);
    assert!(ran.success, "{}{}", ran.stdout, ran.stderr);
}

#[test]
fn what_needs_a_model_says_that_a_baseline_has_none() {
    let world = World::new();
    let majority = world.config_with("[method]\nname = \"majority\"\n");
    assert!(world.train(&majority, "run").success);
    for arguments in [
        &["predict", "--run", "run", "--text", "최고", "--device", "cpu"][..],
        &["evaluate", "--run", "run", "--device", "cpu"],
        &["export", "--run", "run", "--format", "hf", "--out", "out"],
        &["bench", "run", "--run", "run", "--device", "cpu"],
    ] {
        let ran = world.nsmc(arguments);
        let says = ran.stderr.contains("the baseline `majority`")
            || ran.stderr.contains("`majority` is a baseline");
        assert!(!ran.success && says, "{arguments:?}: {}", ran.stderr);
    }
    let ran =
        world.train(&world.config_with(&TFIDF.replace("min_df = 2", "min_df = 1000")), "none");
    assert!(!ran.success && ran.stderr.contains("lower `min_df`"), "{}", ran.stderr);
    let ran = world.train(&world.config_with(&TFIDF.replace("200", "2")), "short");
    assert!(!ran.success && ran.stderr.contains("raise `max_iter`"), "{}", ran.stderr);
}

#[test]
fn the_class_that_precision_and_recall_are_of_is_named() {
    let world = World::new();
    let majority = world.config().replace("name = \"vanilla\"", "name = \"majority\"");
    let swapped = majority
        .replace("labels = [\"0\", \"1\"]", "labels = [\"1\", \"0\"]")
        .replace("[\"negative\", \"positive\"]", "[\"positive\", \"negative\"]");
    for (config, out, class) in [(majority, "first", "positive"), (swapped, "second", "negative")] {
        let ran = world.train(&config, out);
        assert!(ran.success, "{}", ran.stderr);
        assert_eq!(ran.stdout.matches(&format!("({class})")).count(), 3, "{}", ran.stdout);
    }
}
