//! A folder of runs: its tables, and the same tables from what is collected of it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nsmc_eval::study::{Study, collect};
use nsmc_eval::{EvaluatedRun, results_table};
use nsmc_fuzz::{place, split, write};

fuzz_target!(|input: &[u8]| {
    let [record, predictions, attention, second] = split(input);
    let folder = place().empty();
    let (runs, results) = (folder.join("runs"), folder.join("results"));
    let run = runs.join("run");
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
