//! Run records, and the lines by which a run says how far it is.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nsmc_experiment::{ProgressEvent, RunRecord};
use nsmc_fuzz::place;

fuzz_target!(|text: &str| {
    for line in text.lines().take(20) {
        if let Some(event) = ProgressEvent::parse(line) {
            let written = serde_json::to_string(&event).expect("an event is JSON");
            assert_eq!(ProgressEvent::parse(&written), Some(event));
        }
    }
    let path = place().file("record.json", text.as_bytes());
    let Ok(record) = RunRecord::read(&path) else { return };
    record.write(&path).expect("a record can be written");
    assert_eq!(RunRecord::read(&path).expect("what is written is read"), record);
    let (identity, id) = (record.config.identity(), record.config.run_id());
    assert!(id.ends_with(&identity[..8]));
    place().assert_contained();
});
