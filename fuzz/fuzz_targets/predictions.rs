//! Prediction files: of runs, to the last bit, and those made elsewhere.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nsmc_eval::compare::Member;
use nsmc_eval::{ClassificationReport, Predictions};
use nsmc_fuzz::place;

fuzz_target!(|text: &[u8]| {
    let path = place().file("predictions.tsv", text);
    let member = Member::read(&path, None);
    let Ok(predictions) = Predictions::read(&path) else { return };
    let member = member.expect("the predictions of a run are read as those of a member");
    for (row, outcome) in predictions.rows.iter().zip(&member.outcomes) {
        assert_eq!((&row.id, row.label, row.class()), (&outcome.id, outcome.label, outcome.class));
    }
    let report = ClassificationReport::new(&predictions, 32);
    assert!((0.0..=1.0).contains(&report.accuracy));

    let mut written = Vec::new();
    predictions.write(&mut written).expect("memory takes what is written");
    nsmc_fuzz::write(&path, &written);
    let back = Predictions::read(&path).expect("what is written is read");
    assert_eq!(back.num_labels, predictions.num_labels);
    for (back, row) in back.rows.iter().zip(&predictions.rows) {
        assert_eq!((&back.id, back.label, back.in_training), (&row.id, row.label, row.in_training));
        let bits = |logits: &[f32]| logits.iter().map(|l| l.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&back.logits), bits(&row.logits));
    }
    assert_eq!(back.rows.len(), predictions.rows.len());
});
