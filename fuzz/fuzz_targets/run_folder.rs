//! A folder of runs: its tables, and the same tables from what is collected of it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nsmc_eval::study::{Study, collect};
use nsmc_eval::{EvaluatedRun, results_table};
use nsmc_experiment::sha256_hex;
use nsmc_fuzz::{place, split, write};
use serde_json::{Value, json};

/// A record that says that it is of `predictions`, if it can say so.
fn of_predictions(record: &[u8], predictions: &[u8]) -> Vec<u8> {
    let Ok(mut json) = serde_json::from_slice::<Value>(record) else { return record.to_vec() };
    let Some(results) = json.get_mut("results").and_then(Value::as_object_mut) else {
        return record.to_vec();
    };
    let lines = predictions.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).count();
    results.insert("predictions_sha256".into(), json!(sha256_hex(predictions)));
    results.insert("test_reviews".into(), json!(lines.saturating_sub(1)));
    json.to_string().into_bytes()
}

fuzz_target!(|input: &[u8]| {
    let [record, predictions, attention, second] = split(input);
    let folder = place().empty();
    let (runs, results) = (folder.join("runs"), folder.join("results"));
    let run = runs.join("run");
    // With the hash and the number of these predictions: others would be refused unread.
    let record = &of_predictions(record, predictions);
    write(&run.join("record.json"), record);
    write(&run.join("predictions.tsv"), predictions);
    if !attention.is_empty() {
        write(&run.join("fusion_attention.json"), attention);
    }
    if !second.is_empty() {
        write(&runs.join("second/record.json"), second);
        write(&runs.join("second/predictions.tsv"), predictions);
    }
    if let Ok(evaluated) = EvaluatedRun::read(&run) {
        results_table(&[evaluated]);
    }
    let Ok(study) = Study::read_runs(&runs, None) else { return };
    let (csv, _) = (study.csv(), study.markdown());
    if study.runs().is_empty() {
        return;
    }
    let plan = nsmc_eval::study::Plan::of_runs(
        "runs".into(),
        &study.runs().into_iter().cloned().collect::<Vec<_>>(),
    );
    // A run stands under its name in a grid, and here under another.
    let [run] = plan.runs.as_slice() else { return };
    if !study.unreadable.is_empty() || runs.join("second").exists() {
        return;
    }
    fs_err::rename(runs.join("run"), folder.join("renamed")).expect("the run is there");
    fs_err::rename(folder.join("renamed"), runs.join(&run.run_id)).expect("a plain name");
    let collection = collect(&plan, &runs, &results).expect("what was read is collected");
    assert_eq!(collection.runs, [run.run_id.clone()]);
    let collected = Study::read_results(&results).expect("what was collected is read");
    assert_eq!(collected.csv(), csv);
    place().assert_contained();
});
