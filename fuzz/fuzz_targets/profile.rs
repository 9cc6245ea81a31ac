//! A profile, with the manifests and the methods of the repository: every cell resolves or is
//! refused, and what resolves is a configuration that reads back.
#![no_main]

use std::path::Path;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use nsmc_experiment::{
    Catalog, DatasetManifest, Document, ExperimentConfig, FileHashes, ModelManifest, Profile,
};
use nsmc_fuzz::{place, repository, write};

static MANIFESTS: LazyLock<(DatasetManifest, ModelManifest)> = LazyLock::new(|| {
    let datasets = DatasetManifest::read(&repository("datasets/manifest.toml"));
    let models = ModelManifest::read(&repository("models/manifest.toml"));
    (datasets.expect("the manifest is valid"), models.expect("the manifest is valid"))
});

static METHODS: LazyLock<Vec<(String, Vec<u8>)>> = LazyLock::new(|| {
    let folder = fs_err::read_dir(repository("configs/methods")).expect("there are methods");
    let files = folder.map(|entry| {
        let path = entry.expect("the folder can be read").path();
        let name = path.file_name().expect("a file has a name").to_string_lossy().into_owned();
        (name, fs_err::read(path).expect("the file can be read"))
    });
    files.collect()
});

fuzz_target!(|text: &[u8]| {
    let path = place().file("profile.toml", text);
    for (name, content) in &*METHODS {
        write(&path.with_file_name("methods").join(name), content);
    }
    let Ok(profile) = Profile::read(&path) else { return };
    let (datasets, models) = &*MANIFESTS;
    let hashes = FileHashes::default();
    let catalog = Catalog {
        root: path.parent().expect("the file is in a folder"),
        datasets,
        datasets_folder: Path::new("datasets"),
        models,
        model_folder: &|_| None,
        adapters_folder: Path::new("models/adapters"),
        hashes: &hashes,
    };
    for cell in profile.cells.iter().take(3) {
        let Ok(config) = profile.resolve(cell, 0, &[], catalog) else { continue };
        let document = Document::parse(&config.to_toml(), &path).expect("what is written is TOML");
        let back = ExperimentConfig::from_document(&document).expect("what is written is read");
        assert_eq!(back, config);
    }
});
