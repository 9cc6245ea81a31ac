//! A folder of collected results that comes from someone else.
#![no_main]

use std::collections::BTreeMap;
use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use libfuzzer_sys::fuzz_target;
use nsmc_eval::study::{Study, TestSet};
use nsmc_fuzz::{place, split, write};
use nsmc_report::Report;
use serde_json::Value;

fuzz_target!(|input: &[u8]| {
    let [plan, run, test, answers] = split(input);
    let folder = place().empty();
    // Taken as it is, a fuzzer would find neither a checksum nor two equal names.
    let gzip = |bytes: &[u8]| {
        if bytes.starts_with(b"\x1f\x8b") {
            return bytes.to_vec();
        }
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).expect("memory takes what is written");
        encoder.finish().expect("memory takes what is written")
    };
    let id = serde_json::from_slice::<Value>(plan)
        .ok()
        .and_then(|plan| Some(plan["runs"][0]["run_id"].as_str()?.to_owned()))
        // Longer ones are no names of files.
        .filter(|id| id.len() < 200)
        .filter(|id| id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'))
        .unwrap_or_else(|| "run".into());
    write(&folder.join("plan.json"), plan);
    let test_file = folder.join("test.tsv.gz");
    write(&test_file, &gzip(test));
    let mut run = run.to_vec();
    if let Ok(set) = TestSet::read(&test_file) {
        let name = &set.sha256()[..8];
        fs_err::copy(&test_file, folder.join(format!("test-{name}.tsv.gz"))).expect("a plain name");
        if let Ok(mut json) = serde_json::from_slice::<Value>(&run)
            && json["test_set"] == "here"
        {
            json["test_set"] = name.into();
            run = json.to_string().into_bytes();
        }
    }
    write(&folder.join("runs").join(format!("{id}.json")), &run);
    write(&folder.join("predictions").join(format!("{id}.tsv.gz")), &gzip(answers));
    if let Ok(study) = Study::read_results(&folder) {
        study.csv();
        study.markdown();
        study.latex();
        Report { study: &study, texts: BTreeMap::new() }.html();
    }
    place().assert_contained();
});
