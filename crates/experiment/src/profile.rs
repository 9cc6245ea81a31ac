use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::document::{Node, Value};
use crate::method::setup_names;
use crate::reader::Reader;
use crate::{
    ConfigError, DatasetManifest, Document, ExperimentConfig, ModelManifest, Origin, Problem,
    WeightsKind,
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
    /// The folder that a run is started in: relative paths are relative to it.
    pub root: &'a Path,
    /// `datasets/manifest.toml`.
    pub datasets: &'a DatasetManifest,
    /// Folder with a folder per data set, as a run sees it.
    pub datasets_folder: &'a Path,
    /// `models/manifest.toml`.
    pub models: &'a ModelManifest,
    /// The folder of a model of the manifest, if it is on this machine.
    pub model_folder: &'a dyn Fn(&str) -> Option<PathBuf>,
    /// Folder of the manifest's adapters.
    pub adapters_folder: &'a Path,
}

impl Profile {
    /// Reads a profile; the method files are looked for in `methods/` beside it.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let mut shared = Document::read(path)?;
        let grid = shared.remove(&["grid"]);
        let overrides = shared.remove(&["override"]);
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
        upper.overlay(Document::read(&self.methods_folder.join(format!("{}.toml", cell.method)))?);
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
        catalog.find_sources(&mut upper)?;
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
                let sha256 = WeightsKind::Model.sha256(&self.root.join(&folder))?;
                let sha256 =
                    sha256.filter(|_| self.root.join(&folder).is_dir()).ok_or_else(|| {
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
                (sha256, folder)
            }
        };
        let text = |text: String| Node { value: Value::String(text), origin: origin.clone() };
        layer.insert("model.revision", text(revision));
        layer.insert("model.path", text(path.display().to_string()));
        Ok(layer)
    }

    /// Says of the trained weights that a method starts from where they lie and what they are.
    /// Sources of adapters that are not in the setup are left out, and so is an empty start.
    fn find_sources(&self, document: &mut Document) -> Result<(), ConfigError> {
        let setups: Vec<String> = ["method.setup", "method.adapter_setup"]
            .into_iter()
            .filter_map(|key| Some(document.string(key)?.0))
            .collect();
        let names: Vec<&str> = setups.iter().flat_map(|setup| setup_names(setup)).collect();
        for name in document.keys("method.sources") {
            // A fusion layer has its adapters' names, joined by commas.
            let wanted = name == "head" || name.contains(',') || names.contains(&name.as_str());
            if !wanted {
                document.remove(&["method", "sources", &name]);
            }
        }
        let sources = document.keys("method.sources").into_iter();
        let keys: Vec<String> = sources.map(|name| format!("method.sources.{name}")).collect();
        for key in keys.into_iter().chain(["method.start".to_owned()]) {
            let Some((from, origin)) = document.string(&format!("{key}.from")) else { continue };
            if from.is_empty() && key == "method.start" {
                document.remove(&["method", "start"]);
                continue;
            }
            let (path, sha256) = self.find_source(&from, &format!("{key}.from"), &origin)?;
            let text = |text: String| Node { value: Value::String(text), origin: origin.clone() };
            document.insert(&format!("{key}.path"), text(path.display().to_string()));
            document.insert(&format!("{key}.sha256"), text(sha256));
        }
        Ok(())
    }

    fn find_source(
        &self,
        from: &str,
        key: &str,
        origin: &Origin,
    ) -> Result<(PathBuf, String), ConfigError> {
        if let Some(entry) = self.models.adapters.get(from) {
            return Ok((self.adapters_folder.join(&entry.file), entry.sha256.clone()));
        }
        let path = PathBuf::from(from);
        let kind = WeightsKind::of_source(key.trim_end_matches(".from"));
        match kind.sha256(&self.root.join(&path))? {
            Some(sha256) => Ok((path, sha256)),
            None => {
                let known: Vec<_> = self.models.adapters.keys().cloned().collect();
                Err(ConfigError::Problems(vec![Problem {
                    origin: origin.clone(),
                    key: key.into(),
                    message: format!(
                        "expected an adapter of models/manifest.toml ({}), a folder with {}, or a \
                         file, found \"{from}\"",
                        known.join(", "),
                        kind.weights().join(" or ")
                    ),
                }]))
            }
        }
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
[models.mbert]
repos = ["bert-base-multilingual-cased"]
revision = "main"
licence = "Apache-2.0"
files = ["config.json"]
bytes = 714000000
[adapters."ko/wiki@ukp"]
file = "ko.zip"
url = "https://example.org/ko.zip"
sha256 = "2222222222222222222222222222222222222222222222222222222222222222"
model = "mbert"
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
save_steps = 0
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

    const ADAPTER: &str = r#"
[method]
name = "adapter"
setup = "Stack(ko, nsmc)"
head = "classifier"
trains = ["head"]
[method.adapter]
name = "nsmc"
config = "pfeiffer"
reduction_factor = 16
layer_reduction_factors = { 0 = 8 }
leave_out = []
non_linearity = "preset"
invertible = false
dropout = 0.0
[method.sources.ko]
from = "ko/wiki@ukp"
invertible_non_linearity = "preset"
"#;

    const LORA: &str = r#"
[method]
name = "lora"
rank = 16
alpha = 1
dropout = 0.1
target_modules = ["query", "value"]
exclude_modules = []
layers_to_transform = []
rank_pattern = { "layer.0.*.query" = 8 }
alpha_pattern = {}
use_rslora = false
use_dora = false
bias = "none"
trains = ["head"]
[method.start]
from = ""
invertible_non_linearity = "preset"
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
        file("configs/methods/adapter.toml", ADAPTER);
        file("configs/methods/lora.toml", LORA);
        let path = file("configs/toy.toml", profile);
        let datasets = DatasetManifest::read(&file("datasets.toml", DATASETS)).unwrap();
        let models = ModelManifest::read(&file("models.toml", MODELS)).unwrap();
        let catalog = Catalog {
            datasets: &datasets,
            root: Path::new(""),
            datasets_folder: Path::new("datasets"),
            models: &models,
            model_folder: &|name| Some(Path::new("/cache").join(name)),
            adapters_folder: Path::new("models"),
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
    fn sources_are_found_and_those_not_needed_left_out() {
        with_profile(PROFILE, |path, catalog| {
            let profile = Profile::read(path).unwrap();
            let resolve = |method: &str, set: &[&str]| {
                let set: Vec<String> = set.iter().map(|&set| set.to_owned()).collect();
                profile.resolve(&Cell::of(method), 7, &set, catalog)
            };
            let stack = resolve("adapter", &[]).unwrap();
            let MethodConfig::Adapter(method) = &stack.method else { panic!() };
            assert_eq!(method.sources["ko"].path, Path::new("models/ko.zip"));
            assert_eq!(method.sources["ko"].sha256, "2".repeat(64));
            assert_eq!(method.adapter.layer_reduction_factors["0"].to_bits(), 8f64.to_bits());
            assert_eq!(stack.method.label(), "Adapter, Stack(ko, nsmc)");

            let single = resolve("adapter", &["method.setup=nsmc"]).unwrap();
            assert!(single.method.sources().is_empty());
            assert_eq!(single.method.label(), "Adapter");
            let read = crate::Document::parse(&stack.to_toml(), Path::new("run.toml")).unwrap();
            assert_eq!(ExperimentConfig::from_document(&read).unwrap(), stack);

            let message = |set: &str| resolve("adapter", &[set]).unwrap_err().to_string();
            assert!(message("method.setup=Stack(fi, nsmc)").contains("`fi` is neither"));
            assert!(message("method.sources.ko.from=nowhere").contains("(ko/wiki@ukp), a folder"));

            let lora = resolve("lora", &["method.rank=4"]).unwrap();
            assert_eq!(lora.method.label(), "LoRA r=4");
            let MethodConfig::Lora(method) = &lora.method else { panic!() };
            assert_eq!((method.start.is_none(), method.rank_pattern["layer.0.*.query"]), (true, 8));
            let read = crate::Document::parse(&lora.to_toml(), Path::new("run.toml")).unwrap();
            assert_eq!(ExperimentConfig::from_document(&read).unwrap(), lora);

            // A file by another name is the same start; another content is not.
            let folder = tempfile::tempdir().unwrap();
            let start = |name: &str, text: &str| {
                let file = folder.path().join(name);
                fs_err::write(&file, text).unwrap();
                let set = format!("method.start.from='{}'", file.display());
                resolve("lora", &[&set]).unwrap().identity()
            };
            assert_eq!(start("a.bin", "weights"), start("b.bin", "weights"));
            assert_ne!(start("a.bin", "weights"), start("a.bin", "others"));
        });
    }

    #[test]
    fn an_unknown_method_lists_the_known_ones() {
        with_profile(PROFILE, |path, catalog| {
            let profile = Profile::read(path).unwrap();
            let error = profile.resolve(&Cell::of("vanila"), 7, &[], catalog).unwrap_err();
            assert!(error.to_string().contains("adapter, lora, vanilla, found \"vanila\""));
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
