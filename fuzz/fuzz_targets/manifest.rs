//! The manifests of data sets and models, and the lock of models.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nsmc_experiment::{DatasetManifest, LockedModel, ModelLock, ModelManifest};
use nsmc_fuzz::place;

fuzz_target!(|text: &[u8]| {
    let path = place().file("manifest.toml", text);
    let _ = ModelManifest::read(&path);
    if let Ok(manifest) = DatasetManifest::read(&path) {
        for entry in manifest.datasets.values() {
            entry.layer(std::path::Path::new("datasets"));
        }
    }
    if let Ok(lock) = ModelLock::read(&path) {
        let model = LockedModel {
            repo: "a/b".into(),
            revision: "main".into(),
            commit: "0".into(),
            sha256: std::collections::BTreeMap::new(),
        };
        ModelLock::add(&path, "one more", model.clone()).expect("what was read can be added to");
        let mut expected = lock.models;
        expected.insert("one more".into(), model);
        assert_eq!(ModelLock::read(&path).expect("what is written is read").models, expected);
    }
    place().assert_contained();
});
