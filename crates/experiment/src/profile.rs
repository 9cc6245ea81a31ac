use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::document::{Node, Value};
use crate::reader::Reader;
use crate::{
    ConfigError, DatasetManifest, Document, ExperimentConfig, ModelManifest, Origin, Problem,
    sha256_file,
};

/// A grid of runs: one TOML file in `configs/`.
///
/// It holds the sections of an [`ExperimentConfig`] that its runs share, a `[grid]` of cells and
/// seeds, and under `[override.METHOD]` what differs by method. A run is resolved in layers, each
/// laid over the one before: what the manifests say of the data set and the model, the profile, the
/// method's file in `configs/methods/`, the profile's override for that method, the cell's own
/// keys, the command line.
#[derive(Clone, Debug)]
pub struct Profile {
    /// The file's name without its extension.
    pub name: String,
    /// The cells of the grid, in the order they are run.
    pub cells: Vec<Cell>,
    /// A cell is run once per seed.
    pub seeds: Vec<u64>,
    shared: Document,
    overrides: BTreeMap<String, Vec<(String, Node)>>,
    methods_folder: PathBuf,
}

/// One cell of a grid: a method and what is particular to the cell.
#[derive(Clone, Debug)]
pub struct Cell {
    /// A file in `configs/methods/`, without its extension.
    pub method: String,
    set: Vec<(String, Node)>,
}

impl Cell {
    /// The cell of a method without particulars.
    pub fn of(method: impl Into<String>) -> Self {
        Self { method: method.into(), set: Vec::new() }
    }
}

/// The data sets and models that a profile can name, and where they lie.
#[derive(Clone, Copy)]
pub struct Catalog<'a> {
    /// `datasets/manifest.toml`.
    pub datasets: &'a DatasetManifest,
    /// Folder with a folder per data set, as a run sees it.
    pub datasets_folder: &'a Path,
    /// `models/manifest.toml`.
    pub models: &'a ModelManifest,
    /// The folder of a model of the manifest, if it is on this machine.
    pub model_folder: &'a dyn Fn(&str) -> Option<PathBuf>,
}

impl Profile {
    /// Reads a profile; the method files are looked for in `methods/` beside it.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let mut shared = Document::read(path)?;
        let grid = shared.remove("grid");
        let overrides = shared.remove("override");
        let mut root = Document::empty(shared.root.origin.clone());
        for (key, node) in [("grid", grid), ("override", overrides)] {
            if let Some(node) = node {
                root.insert(key, node);
            }
        }

        let mut reader = Reader::new(&root.root);
        let grid = reader.table("grid", |grid| {
            let cells = grid.tables("cells", |cell| Cell {
                method: cell.get("method"),
                set: cell.table_if_any("set", |set| set.entries()).unwrap_or_default(),
            });
            if cells.is_empty() {
                grid.problem("cells", "expected at least one cell");
            }
            let seeds = grid.get_if("seeds", "one or more integers from 0", |seeds: &Vec<u64>| {
                !seeds.is_empty()
            });
            (cells, seeds)
        });
        let overrides = reader.table_if_any("override", |methods| {
            let names: Vec<String> = methods.keys();
            names
                .into_iter()
                .map(|method| {
                    let keys = methods.table(&method, |keys| keys.entries()).unwrap_or_default();
                    (method, keys)
                })
                .collect()
        });
        let (cells, seeds) = reader.finish(grid)?;
        Ok(Self {
            name: path.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
            cells,
            seeds,
            shared,
            overrides: overrides.unwrap_or_default(),
            methods_folder: path.with_file_name("methods"),
        })
    }

    /// The methods that have a file.
    pub fn methods(&self) -> Result<Vec<String>, ConfigError> {
        let mut names = Vec::new();
        for entry in fs_err::read_dir(&self.methods_folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "toml") {
                names.extend(path.file_stem().map(|name| name.to_string_lossy().into_owned()));
            }
        }
        names.sort();
        Ok(names)
    }

    /// Resolves one run.
    pub fn resolve(
        &self,
        cell: &Cell,
        seed: u64,
        assignments: &[String],
        catalog: Catalog<'_>,
    ) -> Result<ExperimentConfig, ConfigError> {
        let methods = self.methods()?;
        if !methods.contains(&cell.method) {
            return Err(ConfigError::Problems(vec![Problem {
                origin: self.shared.root.origin.clone(),
                key: "method".into(),
                message: format!(
                    "expected one of {}, found \"{}\"",
                    methods.join(", "),
                    cell.method
                ),
            }]));
        }
        let mut upper = self.shared.clone();
        upper.overlay(Document::read(
            &self.methods_folder.join(&cell.method).with_extension("toml"),
        )?);
        for (key, node) in self.overrides.get(&cell.method).into_iter().flatten().chain(&cell.set) {
            upper.insert(key, node.clone());
        }
        for assignment in assignments {
            upper.set(assignment)?;
        }
        upper.insert(
            "seed",
            Node {
                value: Value::Integer(seed as i64),
                origin: Origin::Argument(format!("--seed {seed}")),
            },
        );

        let mut document = catalog.layer(&upper)?;
        document.overlay(upper);
        ExperimentConfig::from_document(&document)
    }
}

impl Catalog<'_> {
    /// What the manifests say of the data set and the model that `document` names.
    fn layer(&self, document: &Document) -> Result<Document, ConfigError> {
        let mut layer = Document::empty(document.root.origin.clone());
        if let Some(entry) =
            document.string("data.dataset").and_then(|(name, _)| self.datasets.datasets.get(&name))
        {
            let name = document.string("data.dataset").map(|(name, _)| name).unwrap_or_default();
            layer.overlay(entry.layer(&self.datasets_folder.join(name)));
        }
        let (Some((name, origin)), true) = (
            document.string("model.name"),
            document.string("model.source").is_some_and(|(source, _)| source == "pretrained"),
        ) else {
            return Ok(layer);
        };
        let (revision, path) = match self.models.models.get(&name) {
            Some(entry) => (entry.revision.clone(), (self.model_folder)(&name).unwrap_or_default()),
            None => {
                let folder = PathBuf::from(&name);
                let weights = ["model.safetensors", "pytorch_model.bin"]
                    .map(|file| folder.join(file))
                    .into_iter()
                    .find(|file| file.is_file())
                    .ok_or_else(|| {
                        let known: Vec<_> = self.models.models.keys().cloned().collect();
                        ConfigError::Problems(vec![Problem {
                            origin: origin.clone(),
                            key: "model.name".into(),
                            message: format!(
                                "expected a model of models/manifest.toml ({}) or a folder with \
                                 model.safetensors or pytorch_model.bin, found \"{name}\"",
                                known.join(", ")
                            ),
                        }])
                    })?;
                (sha256_file(&weights)?, folder)
            }
        };
        let text = |text: String| Node { value: Value::String(text), origin: origin.clone() };
        layer.insert("model.revision", text(revision));
        layer.insert("model.path", text(path.display().to_string()));
        Ok(layer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MethodConfig, ModelConfig, Rows};

    const DATASETS: &str = r#"
[toy]
title = "Toy"
licence = "CC0-1.0"
id_column = "id"
text_column = "document"
label_column = "label"
labels = ["0", "1"]
label_names = ["negative", "positive"]
delimiter = "\t"
quoting = false
[toy.train]
name = "train.txt"
url = "https://example.org/train.txt"
sha256 = "0000000000000000000000000000000000000000000000000000000000000000"
bytes = 10
rows = 4
class_counts = [2, 2]
[toy.test]
name = "test.txt"
url = "https://example.org/test.txt"
sha256 = "1111111111111111111111111111111111111111111111111111111111111111"
bytes = 10
rows = 4
class_counts = [1, 3]
"#;

    const MODELS: &str = r#"
[mbert]
repos = ["bert-base-multilingual-cased"]
revision = "main"
licence = "Apache-2.0"
files = ["config.json"]
bytes = 714000000
"#;

    const PROFILE: &str = r#"
[model]
source = "pretrained"
name = "mbert"
[data]
dataset = "toy"
train_size = "all"
test_size = "all"
validation_fraction = 0.1
max_length = 128
[training]
num_train_epochs = 4
train_batch_size = 32
learning_rate = 2e-5
warmup_ratio = 0.0
optimizer = "adamw_hf"
adam_beta1 = 0.9
adam_beta2 = 0.999
adam_epsilon = 1e-8
weight_decay = 0.0
max_grad_norm = 1.0
selection = "last"
[evaluation]
eval_batch_size = 64
metric_batch_size = 32
[grid]
seeds = [1, 2]
cells = [
    { method = "vanilla" },
    { method = "vanilla", set = { "data.train_size" = 100 } },
]
[override.vanilla]
"training.learning_rate" = 5e-5
"#;

    fn with_profile<T>(profile: &str, test: impl FnOnce(&Path, Catalog<'_>) -> T) -> T {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            fs_err::write(&path, text).unwrap();
            path
        };
        file("configs/methods/vanilla.toml", "[method]\nname = \"vanilla\"\n");
        let path = file("configs/toy.toml", profile);
        let datasets = DatasetManifest::read(&file("datasets.toml", DATASETS)).unwrap();
        let models = ModelManifest::read(&file("models.toml", MODELS)).unwrap();
        let catalog = Catalog {
            datasets: &datasets,
            datasets_folder: Path::new("datasets"),
            models: &models,
            model_folder: &|name| Some(Path::new("/cache").join(name)),
        };
        test(&path, catalog)
    }

    #[test]
    fn layers_are_laid_in_their_order() {
        with_profile(PROFILE, |path, catalog| {
            let profile = Profile::read(path).unwrap();
            assert_eq!((profile.name.as_str(), profile.seeds.as_slice()), ("toy", &[1, 2][..]));
            let config = profile.resolve(&profile.cells[1], 7, &[], catalog).unwrap();
            assert_eq!(config.seed, 7);
            assert_eq!(config.method, MethodConfig::Vanilla);
            assert_eq!(config.data.train_size, Rows::Exactly(100));
            assert_eq!(config.data.test.path, Path::new("datasets/toy/test.txt"));
            assert_eq!(config.data.test.class_counts, [1, 3]);
            assert_eq!(config.training.learning_rate.to_bits(), 5e-5f64.to_bits());
            let ModelConfig::Pretrained { path, revision, .. } = &config.model else { panic!() };
            assert_eq!((path.as_path(), revision.as_str()), (Path::new("/cache/mbert"), "main"));

            let set = ["training.learning_rate=1e-4".to_owned()];
            let config = profile.resolve(&profile.cells[0], 7, &set, catalog).unwrap();
            assert_eq!(config.training.learning_rate.to_bits(), 1e-4f64.to_bits());
            assert_eq!(config.data.train_size, Rows::All);
        });
    }

    #[test]
    fn a_bad_override_is_named_by_its_argument() {
        with_profile(PROFILE, |path, catalog| {
            let profile = Profile::read(path).unwrap();
            let set = ["training.lerning_rate=1e-4".to_owned(), "model.name=nowhere".to_owned()];
            let message =
                profile.resolve(&profile.cells[0], 7, &set[..1], catalog).unwrap_err().to_string();
            assert_eq!(
                message,
                "--set training.lerning_rate=1e-4: `training.lerning_rate`: unknown key; did you \
                 mean `learning_rate`?"
            );
            let message =
                profile.resolve(&profile.cells[0], 7, &set[1..], catalog).unwrap_err().to_string();
            assert!(message.contains("(mbert) or a folder"), "{message}");
        });
    }

    #[test]
    fn an_unknown_method_lists_the_known_ones() {
        with_profile(PROFILE, |path, catalog| {
            let profile = Profile::read(path).unwrap();
            let error = profile.resolve(&Cell::of("vanila"), 7, &[], catalog).unwrap_err();
            assert!(error.to_string().contains("expected one of vanilla, found \"vanila\""));
        });
    }

    #[test]
    fn a_grid_with_mistakes_is_refused() {
        let profile =
            PROFILE.replace("seeds = [1, 2]", "sedes = [1, 2]").replace("method = ", "mehtod = ");
        with_profile(&profile, |path, _| {
            let message = Profile::read(path).unwrap_err().to_string();
            for expected in
                ["did you mean `seeds`", "`grid.cells[0].method`: missing", "did you mean `method`"]
            {
                assert!(message.contains(expected), "{message}");
            }
        });
    }
}
