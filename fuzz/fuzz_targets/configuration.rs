//! The configuration of a run and of a pre-training: what is read is what was written.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use nsmc_experiment::{Document, ExperimentConfig, PretrainingConfig};
use nsmc_fuzz::place;

fuzz_target!(|text: &str| {
    let path = Path::new("config.toml");
    let Ok(document) = Document::parse(text, path) else { return };
    if let Ok(config) = ExperimentConfig::from_document(&document) {
        let written = Document::parse(&config.to_toml(), path).expect("what is written is TOML");
        let back = ExperimentConfig::from_document(&written).expect("what is written is read");
        assert_eq!(back, config);
        assert_eq!(back.run_id(), config.run_id());
    }
    let path = place().file("config.toml", text.as_bytes());
    if let Ok(config) = PretrainingConfig::read(&path) {
        nsmc_fuzz::write(&path, config.to_toml().as_bytes());
        assert_eq!(PretrainingConfig::read(&path).expect("what is written is read"), config);
    }
});
