use std::collections::BTreeMap;
use std::path::Path;

use crate::document::{Node, Value};
use crate::reader::Reader;
use crate::{ConfigError, Document, Origin};

/// `datasets/manifest.toml`: the data sets that can be downloaded and what they must hold.
#[derive(Clone, Debug)]
pub struct DatasetManifest {
    /// By name.
    pub datasets: BTreeMap<String, DatasetEntry>,
}

/// One data set.
#[derive(Clone, Debug)]
pub struct DatasetEntry {
    /// Its title.
    pub title: String,
    /// SPDX identifier.
    pub licence: String,
    /// Training file.
    pub train: FileEntry,
    /// Test file.
    pub test: FileEntry,
    /// The archive that it was made of, for pre-training.
    pub raw: Option<RawEntry>,
    /// The `[data]` keys that describe the format, for the resolved configuration.
    format: BTreeMap<String, Node>,
}

/// An archive to download. Its bytes are not fixed: what is made of it is checked.
#[derive(Clone, Debug)]
pub struct RawEntry {
    /// Its name under the data set's folder.
    pub name: String,
    /// Where it is published.
    pub url: String,
    /// sha256 of the corpus for pre-training that is built of it.
    pub corpus_sha256: String,
}

/// A file to download.
#[derive(Clone, Debug)]
pub struct FileEntry {
    /// Its name under the data set's folder.
    pub name: String,
    /// Where it is published.
    pub url: String,
    /// sha256 of the content.
    pub sha256: String,
    /// Its size.
    pub bytes: u64,
    /// Rows without the header.
    pub rows: usize,
    /// Rows per class, in the order of the labels.
    pub class_counts: Vec<usize>,
}

impl DatasetManifest {
    /// Reads the manifest.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let document = Document::read(path)?;
        let mut reader = Reader::new(&document.root);
        let datasets = reader
            .keys()
            .into_iter()
            .filter_map(|name| Some((name.clone(), reader.table(&name, read_dataset)??)))
            .collect();
        reader.finish(Some(Self { datasets }))
    }
}

impl DatasetEntry {
    /// The `[data]` layer of a resolved configuration, with the files in `folder`.
    pub fn layer(&self, folder: &Path) -> Document {
        let origin = Origin::Argument("datasets/manifest.toml".into());
        let node = |value| Node { value, origin: origin.clone() };
        let file = |entry: &FileEntry| {
            let path = folder.join(&entry.name).display().to_string();
            let counts = entry.class_counts.iter().map(|&count| node(Value::Integer(count as i64)));
            node(Value::Table(BTreeMap::from([
                ("path".into(), node(Value::String(path))),
                ("sha256".into(), node(Value::String(entry.sha256.clone()))),
                ("class_counts".into(), node(Value::Array(counts.collect()))),
            ])))
        };
        let mut data = self.format.clone();
        data.insert("train".into(), file(&self.train));
        data.insert("test".into(), file(&self.test));
        let mut document = Document::empty(origin.clone());
        document.insert("data", node(Value::Table(data)));
        document
    }
}

fn read_dataset(dataset: &mut Reader<'_>) -> Option<DatasetEntry> {
    let title = dataset.get("title");
    let licence = dataset.get("licence");
    let train = dataset.table("train", read_file);
    let test = dataset.table("test", read_file);
    let raw = dataset.table_if_any("raw", |raw| RawEntry {
        name: raw.get("name"),
        url: raw.get("url"),
        corpus_sha256: raw.sha256("corpus_sha256"),
    });
    let format = dataset.entries().into_iter().collect();
    Some(DatasetEntry { title, licence, train: train?, test: test?, raw, format })
}

fn read_file(file: &mut Reader<'_>) -> FileEntry {
    FileEntry {
        name: file.get("name"),
        url: file.get("url"),
        sha256: file.get("sha256"),
        bytes: file.get("bytes"),
        rows: file.get("rows"),
        class_counts: file.get("class_counts"),
    }
}

/// `models/manifest.toml`: pre-trained models and adapters that runs can name.
#[derive(Clone, Debug)]
pub struct ModelManifest {
    /// Models on the Hugging Face hub, by name.
    pub models: BTreeMap<String, ModelEntry>,
    /// Adapters on AdapterHub, by name.
    pub adapters: BTreeMap<String, AdapterEntry>,
}

/// One model on the hub.
#[derive(Clone, Debug)]
pub struct ModelEntry {
    /// The repository's names on the hub. The first is downloaded from; a copy that another tool
    /// cached under any of them is used.
    pub repos: Vec<String>,
    /// Commit or branch.
    pub revision: String,
    /// SPDX identifier.
    pub licence: String,
    /// The files needed.
    pub files: Vec<String>,
    /// Roughly what a download takes, for the plan.
    pub bytes: u64,
}

/// One adapter: a zip archive in AdapterHub's layout.
#[derive(Clone, Debug)]
pub struct AdapterEntry {
    /// Its name under the folder of adapters.
    pub file: String,
    /// Where it is published.
    pub url: String,
    /// sha256 of the archive.
    pub sha256: String,
    /// The model it was made for.
    pub model: String,
}

impl ModelManifest {
    /// Reads the manifest.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let document = Document::read(path)?;
        let mut reader = Reader::new(&document.root);
        let models = reader.table("models", |models| {
            let names = models.keys().into_iter();
            names
                .filter_map(|name| Some((name.clone(), models.table(&name, read_model)?)))
                .collect()
        });
        let adapters = reader.table("adapters", |adapters| {
            let names = adapters.keys().into_iter();
            names
                .filter_map(|name| Some((name.clone(), adapters.table(&name, read_adapter)?)))
                .collect()
        });
        let manifest = (|| Some(Self { models: models?, adapters: adapters? }))();
        reader.finish(manifest)
    }
}

fn read_model(model: &mut Reader<'_>) -> ModelEntry {
    ModelEntry {
        repos: model
            .get_if("repos", "one or more repository names", |names: &Vec<_>| !names.is_empty()),
        revision: model.get("revision"),
        licence: model.get("licence"),
        files: model.get("files"),
        bytes: model.get("bytes"),
    }
}

fn read_adapter(adapter: &mut Reader<'_>) -> AdapterEntry {
    AdapterEntry {
        file: adapter.get("file"),
        url: adapter.get("url"),
        sha256: adapter.get("sha256"),
        model: adapter.get("model"),
    }
}
