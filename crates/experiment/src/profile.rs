use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::document::{Node, Value};
use crate::grid::{Grid, Overrides, Recipe, Trials, read_grid, trial_recipe, unknown_method};
use crate::method::setup_names;
use crate::reader::Reader;
use crate::{
    Cell, ConfigError, DatasetManifest, Document, ExperimentConfig, FileHashes, MethodKind,
    ModelManifest, Origin, Problem, WeightsKind,
};

/// A grid of runs: one TOML file in `configs/`.
///
/// It holds the sections of an [`ExperimentConfig`] that its runs share, a `[grid]` of cells and
/// seeds, under `[override.METHOD]` what differs by method, and under `[recipe.NAME]` what differs by
/// recipe: sections and overrides of its own. A run is resolved in layers, each laid over the one
/// before: what the manifests say of the data set and the model, the profile, the method's file in
/// `configs/methods/`, the profile's override for that method, the recipe, the recipe's override, the
/// cell's own keys, the command line.
#[derive(Clone, Debug)]
pub struct Profile {
    /// The file's name without its extension.
    pub name: String,
    /// The cells of the grid, in the order they are run.
    pub cells: Vec<Cell>,
    /// The cells of the baselines beside them, one per choice of data; several may come to the same
    /// run. Each is run once, for a baseline has no seed.
    pub baselines: Vec<Cell>,
    /// A cell is run once per seed.
    pub seeds: Vec<u64>,
    /// A cell stands for the paper's at so many times its training reviews; none if it stands for the
    /// paper's own or for none.
    pub paper_scale: Option<usize>,
    /// What chooses among candidates before the cells, if the profile says so.
    pub trials: Option<Trials>,
    shared: Document,
    overrides: Overrides,
    recipes: BTreeMap<String, Recipe>,
    /// The text of each method's file: an edit of one while a grid is at work is no part of it.
    methods: BTreeMap<String, String>,
    methods_folder: PathBuf,
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
    /// Of local models and adapters.
    pub hashes: &'a FileHashes,
}

impl Profile {
    /// Reads a profile, and the methods' files in `methods/` beside it.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let mut shared = Document::read(path)?;
        let mut root = Document::empty(shared.root.origin.clone());
        for key in ["grid", "override", "recipe", "trials"] {
            if let Some(node) = shared.remove(&[key]) {
                root.insert(key, node);
            }
        }
        let methods_folder = path.with_file_name("methods");
        let methods = method_files(&methods_folder)?;
        let names: Vec<String> = methods.keys().cloned().collect();
        let mut reader = Reader::new(&root.root);
        let grid = read_grid(&mut reader, &names);
        let Grid { cells, baselines, seeds, paper_scale, overrides, recipes, trials } =
            reader.finish(grid)?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self {
            name,
            cells,
            baselines,
            seeds,
            paper_scale,
            trials,
            shared,
            overrides,
            recipes,
            methods,
            methods_folder,
        })
    }

    /// The cell of a method of the command line, without particulars. A profile with more than one
    /// recipe must be told which. A method that there is not is told by [`Self::resolve`], with what is
    /// wrong beside it, or here if the recipe is.
    pub fn cell(&self, method: &str, recipe: Option<&str>) -> Result<Cell, ConfigError> {
        if method.parse().is_ok_and(MethodKind::is_baseline) && recipe.is_none() {
            return Ok(Cell::of(method));
        }
        let known: Vec<&str> = self.recipes.keys().map(String::as_str).collect();
        let (recipe, found) = match (recipe, known.as_slice()) {
            (Some(recipe), known) if known.contains(&recipe) => (recipe, String::new()),
            (None, []) => ("", String::new()),
            (None, [only]) => (*only, String::new()),
            (Some(recipe), _) => (recipe, format!("found \"{recipe}\"")),
            (None, _) => ("", "found none".into()),
        };
        if !found.is_empty() {
            let expected = match known.as_slice() {
                [] => "none, for the profile has no recipes".into(),
                known => format!("one of {}", known.join(", ")),
            };
            let mut problems: Vec<_> = self.no_such_method(method).into_iter().collect();
            problems.push(Problem {
                origin: Origin::Argument("--recipe".into()),
                key: "recipe".into(),
                message: format!("expected {expected}, {found}"),
            });
            return Err(ConfigError::Problems(problems));
        }
        Ok(Cell { recipe: recipe.into(), ..Cell::of(method) })
    }

    /// What is wrong with a method, if it has no file. The profile's own have one ([`Self::read`]), so
    /// that it is the command line's.
    fn no_such_method(&self, method: &str) -> Option<Problem> {
        (!self.methods.contains_key(method)).then(|| Problem {
            origin: Origin::Argument(format!("--method {method}")),
            key: "method".into(),
            message: unknown_method(method, self.methods.keys()),
        })
    }

    /// Resolves one run.
    pub fn resolve(
        &self,
        cell: &Cell,
        seed: u64,
        assignments: &[String],
        catalog: Catalog<'_>,
    ) -> Result<ExperimentConfig, ConfigError> {
        let resolved = self.resolve_keys(cell, seed, assignments, catalog);
        let Some(problem) = self.no_such_method(&cell.method) else { return resolved };
        let mut problems = vec![problem];
        if let Err(ConfigError::Problems(others)) = resolved {
            problems.extend(others.into_iter().filter(|other| other.key != "method"));
        }
        Err(ConfigError::Problems(problems))
    }

    /// The same; of a method that has no file, the section is missing, for which keys belong there is
    /// not known.
    fn resolve_keys(
        &self,
        cell: &Cell,
        seed: u64,
        assignments: &[String],
        catalog: Catalog<'_>,
    ) -> Result<ExperimentConfig, ConfigError> {
        let mut upper = self.shared.clone();
        let method = self.methods.get(&cell.method);
        if let Some(text) = method {
            let path = self.methods_folder.join(format!("{}.toml", cell.method));
            upper.overlay(Document::parse(text, &path)?);
        }
        let recipe = self.recipes.get(&cell.recipe);
        let overrides = [Some(&self.overrides), recipe.map(|recipe| &recipe.overrides)]
            .map(|overrides| overrides.and_then(|overrides| overrides.get(&cell.method)));
        let sections = recipe.map(|recipe| &recipe.sections);
        let layers = [overrides[0], sections, overrides[1], Some(&cell.set)];
        for (key, node) in layers.into_iter().flatten().flatten() {
            // A model that says where it comes from has no keys of the one beneath.
            if key == "model" && node.has("source") {
                upper.remove(&["model"]);
            }
            upper.insert(key, node.clone());
        }
        for assignment in assignments {
            upper.set(assignment)?;
        }
        if method.is_none() {
            upper.remove(&["method"]);
        }
        for (key, where_it_is) in [
            ("seed", "`--seed`, or `seeds` in the profile's `[grid]`"),
            ("recipe", "`--recipe`, or `recipes` in the profile's `[grid]`"),
            ("numerics", "what this program computes"),
        ] {
            if let Some(Node { origin, .. }) = upper.remove(&[key]) {
                let message = format!("expected none here: it is {where_it_is}");
                return Err(ConfigError::Problems(vec![Problem {
                    origin,
                    key: key.into(),
                    message,
                }]));
            }
        }
        let label = if cell.trial { trial_recipe(&cell.recipe) } else { cell.recipe.clone() };
        if !label.is_empty() {
            upper.insert_text("recipe", &label);
        }
        let origin = Origin::Argument(format!("--seed {seed}"));
        let Ok(number) = i64::try_from(seed) else {
            let message = format!("expected an integer from 0 to {}, found {seed}", i64::MAX);
            return Err(ConfigError::Problems(vec![Problem {
                origin,
                key: "seed".into(),
                message,
            }]));
        };
        upper.insert("seed", Node { value: Value::Integer(number), origin });

        let mut document = catalog.layer(&upper)?;
        catalog.find_sources(&mut upper)?;
        document.overlay(upper);
        let config = ExperimentConfig::from_document(&document)?;
        Ok(ExperimentConfig { numerics: config.todays_numerics(), ..config })
    }
}

/// The texts of the methods that have a file.
fn method_files(folder: &Path) -> Result<BTreeMap<String, String>, ConfigError> {
    let mut methods = BTreeMap::new();
    for entry in fs_err::read_dir(folder)? {
        let path = entry?.path();
        // An editor's lock is a link to nowhere.
        let is_method = path.extension().is_some_and(|it| it == "toml") && path.is_file();
        if let (true, Some(name)) = (is_method, path.file_stem()) {
            methods.insert(name.to_string_lossy().into_owned(), fs_err::read_to_string(&path)?);
        }
    }
    Ok(methods)
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
                let sha256 = WeightsKind::Model.sha256(&self.root.join(&folder), self.hashes)?;
                let sha256 =
                    sha256.filter(|_| self.root.join(&folder).is_dir()).ok_or_else(|| {
                        let known: Vec<_> = self.models.models.keys().cloned().collect();
                        ConfigError::Problems(vec![Problem {
                            origin: origin.clone(),
                            key: "model.name".into(),
                            message: format!(
                                "expected a model of models/manifest.toml ({}) or a folder with \
                                 model.safetensors or pytorch_model.bin, found \"{name}\"; \
                                 another model of the hub is put into such a folder first",
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
    /// Sources of adapters that are not in the setup are left out, and so is an empty start; one that
    /// an argument names is a mistake. Of a setup with a mistake it is not known what is in it: none is
    /// looked for, and the mistake is told where the method is read.
    fn find_sources(&self, document: &mut Document) -> Result<(), ConfigError> {
        let setups: Vec<String> = ["method.setup", "method.adapter_setup"]
            .into_iter()
            .filter_map(|key| Some(document.string(key)?.0))
            .collect();
        let names: Result<Vec<_>, _> = setups.iter().map(|setup| setup_names(setup)).collect();
        let Ok(names) = names.map(|names| names.concat()) else {
            document.remove(&["method", "sources"]);
            return Ok(());
        };
        for name in document.keys("method.sources") {
            // A fusion layer has its adapters' names, joined by commas.
            let wanted = name == "head" || name.contains(',') || names.contains(&name.as_str());
            let from = document.string(&format!("method.sources.{name}.from"));
            if let (false, Some((_, origin @ Origin::Argument(_)))) = (wanted, from)
                && !setups.is_empty()
            {
                return Err(ConfigError::Problems(vec![Problem {
                    origin,
                    key: format!("method.sources.{name}"),
                    message: format!(
                        "expected an adapter of the setup ({}), \"head\", or a fusion's adapters",
                        names.join(", ")
                    ),
                }]));
            }
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
        match kind.sha256(&self.root.join(&path), self.hashes)? {
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

    const TFIDF: &str = r#"
[method]
name = "tfidf"
ngram_range = [1, 4]
min_df = 2
sublinear_tf = true
c = 3.0
tol = 1e-4
max_iter = 500
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
        file("configs/methods/majority.toml", "[method]\nname = \"majority\"\n");
        file("configs/methods/tfidf.toml", TFIDF);
        file("configs/methods/adapter.toml", ADAPTER);
        file("configs/methods/lora.toml", LORA);
        let path = file("configs/toy.toml", profile);
        let datasets = DatasetManifest::read(&file("datasets.toml", DATASETS)).unwrap();
        let models = ModelManifest::read(&file("models.toml", MODELS)).unwrap();
        let hashes = FileHashes::default();
        let catalog = Catalog {
            hashes: &hashes,
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
    fn what_would_be_passed_over_is_refused_where_it_stands() {
        with_profile(PROFILE, |path, catalog| {
            let profile = Profile::read(path).unwrap();
            let refused = |cell: &Cell, set: &str| {
                let error = profile.resolve(cell, 1, &[set.to_owned()], catalog).unwrap_err();
                error.to_string()
            };
            let seed = refused(&profile.cells[0], "seed=7");
            assert!(seed.contains("--set seed=7") && seed.contains("`--seed`"), "{seed}");
            let recipe = refused(&profile.cells[0], "recipe=tuned");
            assert!(
                recipe.contains("--set recipe=tuned") && recipe.contains("`--recipe`"),
                "{recipe}"
            );
            let source = refused(&Cell::of("adapter"), "method.sources.kor.from=models/ko");
            assert!(
                source.contains("method.sources.kor") && source.contains("ko, nsmc"),
                "{source}"
            );
        });
        let seed = format!("seed = 7\n{PROFILE}");
        with_profile(&seed, |path, catalog| {
            let profile = Profile::read(path).unwrap();
            let error = profile.resolve(&profile.cells[0], 1, &[], catalog).unwrap_err();
            assert!(error.to_string().contains("toy.toml:1: `seed`"), "{error}");
        });
    }

    #[test]
    fn a_seed_is_one_that_a_configuration_can_hold() {
        with_profile(PROFILE, |path, catalog| {
            let profile = Profile::read(path).unwrap();
            let most = i64::MAX as u64;
            let resolve = |seed| profile.resolve(&profile.cells[0], seed, &[], catalog);
            let config = resolve(most).unwrap();
            let back = Document::parse(&config.to_toml(), Path::new("run.toml")).unwrap();
            assert_eq!(ExperimentConfig::from_document(&back).unwrap().seed, most);
            for seed in [most + 1, u64::MAX] {
                let message = resolve(seed).unwrap_err().to_string();
                let expected = format!(
                    "--seed {seed}: `seed`: expected an integer from 0 to 9223372036854775807, found {seed}"
                );
                assert_eq!(message, expected);
            }
        });
    }

    #[test]
    fn a_recipe_lies_over_the_profile_and_under_the_cell() {
        let recipes = PROFILE.replace(
            "[grid]\nseeds = [1, 2]\n",
            "[recipe.paper]\n[recipe.tuned.training]\nlearning_rate = 1e-3\nwarmup_ratio = 0.1\n\
             [recipe.tuned.override.lora]\n\"method.alpha\" = 32\n\"method.rank\" = 8\n\
             [recipe.odd.model]\nsource = \"scratch\"\nvocab_size = 100\nhidden_size = 8\n\
             num_hidden_layers = 1\nnum_attention_heads = 2\nintermediate_size = 16\n\
             max_position_embeddings = 128\nhidden_dropout_prob = 0.1\n\
             attention_probs_dropout_prob = 0.1\n\
             [grid]\nseeds = [1, 2]\nrecipes = [\"paper\", \"tuned\"]\n",
        );
        let recipes = recipes.replace(
            "    { method = \"vanilla\" },\n",
            "    { method = \"vanilla\", recipes = [\"odd\", \"paper\"] },\n    \
             { method = \"lora\", set = { \"method.rank\" = 4 } },\n",
        );
        with_profile(&recipes, |path, catalog| {
            let profile = Profile::read(path).unwrap();
            let cells: Vec<_> = profile
                .cells
                .iter()
                .map(|cell| (cell.recipe.as_str(), cell.method.as_str(), cell.set.len()))
                .collect();
            assert_eq!(
                cells,
                [
                    ("odd", "vanilla", 0),
                    ("paper", "vanilla", 0),
                    ("paper", "lora", 1),
                    ("paper", "vanilla", 1),
                    ("tuned", "lora", 1),
                    ("tuned", "vanilla", 1),
                ]
            );
            let resolve = |cell: &Cell, set: &[String]| profile.resolve(cell, 1, set, catalog);
            let paper = resolve(&profile.cells[2], &[]).unwrap();
            let tuned = resolve(&profile.cells[4], &[]).unwrap();
            assert_eq!((paper.recipe.as_str(), tuned.recipe.as_str()), ("paper", "tuned"));
            let rates = [&paper, &tuned].map(|config| config.training.learning_rate.to_bits());
            assert_eq!(rates, [2e-5f64, 1e-3].map(f64::to_bits));
            assert_eq!(tuned.training.warmup_ratio.to_bits(), 0.1f64.to_bits());
            assert_eq!(tuned.training.num_train_epochs, 4);
            let lora = |config: &ExperimentConfig| match &config.method {
                MethodConfig::Lora(lora) => (lora.rank, lora.alpha as u32),
                _ => panic!(),
            };
            assert_eq!((lora(&paper), lora(&tuned)), ((4, 1), (4, 32)));
            // The recipe lies over the profile's override for vanilla, too.
            let tuned = resolve(&profile.cells[5], &[]).unwrap();
            assert_eq!(tuned.training.learning_rate.to_bits(), 1e-3f64.to_bits());
            let set = ["training.learning_rate=4e-4".to_owned()];
            let tuned = resolve(&profile.cells[5], &set).unwrap();
            assert_eq!(tuned.training.learning_rate.to_bits(), 4e-4f64.to_bits());

            // Another source of the model leaves nothing of the profile's.
            let odd = resolve(&profile.cells[0], &[]).unwrap();
            assert!(matches!(&odd.model, ModelConfig::Scratch(shape) if shape.hidden_size == 8));
            assert!(matches!(&paper.model, ModelConfig::Pretrained { .. }));

            assert_eq!(profile.cell("lora", Some("tuned")).unwrap().recipe, "tuned");
            let message = |recipe| profile.cell("lora", recipe).unwrap_err().to_string();
            assert!(message(None).contains("expected one of odd, paper, tuned, found none"));
            assert!(message(Some("best")).contains("found \"best\""));
        });
        with_profile(PROFILE, |path, _| {
            let profile = Profile::read(path).unwrap();
            assert_eq!(profile.cell("lora", None).unwrap().recipe, "");
            let error = profile.cell("lora", Some("tuned")).unwrap_err();
            assert!(error.to_string().contains("the profile has no recipes"), "{error}");
        });
    }

    const TRIALS: &str = r#"
[trials]
seed = 9
set = { "data.train_size" = 50, "training.num_train_epochs" = 1 }
[trials.candidates]
vanilla = [{ "training.learning_rate" = 2e-5 }, { "training.learning_rate" = 5e-5 }]
lora = [{ "training.learning_rate" = 1e-3 }, { "training.learning_rate" = 2e-3, "method.alpha" = 2 }]
"#;

    #[test]
    fn a_baseline_is_decided_by_data_and_method_alone() {
        let profile =
            PROFILE.replace("[grid]\n", "[grid]\nbaselines = [\"tfidf\", \"majority\"]\n");
        with_profile(&profile, |path, catalog| {
            let profile = Profile::read(path).unwrap();
            let resolve = |cell: &Cell, seed, set: &str| {
                let set: Vec<String> = set.split_whitespace().map(str::to_owned).collect();
                profile.resolve(cell, seed, &set, catalog).unwrap()
            };
            let found: Vec<(&str, Rows)> = profile
                .baselines
                .iter()
                .map(|cell| (cell.method.as_str(), resolve(cell, 1, "").data.train_size))
                .collect();
            let hundred = Rows::Exactly(100);
            let all = Rows::All;
            let expected =
                [("tfidf", all), ("majority", all), ("tfidf", hundred), ("majority", hundred)];
            assert_eq!(found, expected, "one per choice of data");
            let [tfidf, majority, small, _] = profile.baselines.as_slice() else { panic!() };
            let config = resolve(tfidf, 1, "");
            assert!(config.run_id().starts_with("tfidf-all-") && !config.run_id().contains("-s1"));
            let nothing = "training.learning_rate=0.5 data.max_length=64 model.name=mbert";
            assert_eq!(config.identity(), resolve(tfidf, 2, nothing).identity());
            for other in [
                resolve(small, 1, ""),
                resolve(majority, 1, ""),
                resolve(tfidf, 1, "method.c=1.0"),
                resolve(tfidf, 1, "data.validation_fraction=0.2"),
                resolve(tfidf, 1, "evaluation.metric_batch_size=8"),
            ] {
                assert_ne!(config.identity(), other.identity(), "{}", other.run_id());
            }
            let message = |set: &str| {
                profile.resolve(tfidf, 1, &[set.to_owned()], catalog).unwrap_err().to_string()
            };
            assert!(message("method.ngram_range=[3, 2]").contains("from 1 to 6, as [1, 4]"));
            assert!(message("method.c=0.0").contains("expected a number above 0"));
        });
        let unknown = PROFILE.replace("[grid]\n", "[grid]\nbaselines = [\"head\"]\n");
        with_profile(&unknown, |path, _| {
            let message = Profile::read(path).unwrap_err().to_string();
            assert!(message.contains("expected baselines among majority, tfidf"), "{message}");
        });
    }

    #[test]
    fn cells_take_the_keys_of_a_trial_and_keep_their_own() {
        let profile = PROFILE.replace(
            "{ method = \"vanilla\" },",
            "{ method = \"lora\" }, { method = \"adapter\" },",
        );
        with_profile(&(profile + TRIALS), |path, catalog| {
            let profile = Profile::read(path).unwrap();
            let trials = profile.trials.as_ref().unwrap();
            let [lora, adapter, vanilla] = profile.cells.as_slice() else { panic!() };
            assert!(trials.before(adapter).is_empty(), "it has no candidates");
            let candidates = trials.before(lora);
            assert_eq!(candidates.len(), 2);
            assert!(trials.before(&candidates[0]).is_empty(), "a trial waits for nothing");
            assert_eq!(
                trials.describe("lora", 1),
                "method.alpha = 2, training.learning_rate = 0.002"
            );
            let trial = profile.resolve(&candidates[1], trials.seed, &[], catalog).unwrap();
            assert_eq!((trial.recipe.as_str(), trial.seed), ("trial", 9));
            assert!(trial.is_trial());
            assert_eq!(trial.data.train_size, Rows::Exactly(50));
            assert_eq!(trial.training.num_train_epochs, 1);
            assert_eq!(trial.training.learning_rate.to_bits(), 2e-3f64.to_bits());

            let cell = vanilla.taking(trials, 1);
            let config = profile.resolve(&cell, 1, &[], catalog).unwrap();
            assert_eq!((config.recipe.as_str(), config.training.num_train_epochs), ("", 4));
            assert!(!config.is_trial());
            assert_eq!(config.training.learning_rate.to_bits(), 5e-5f64.to_bits());
            assert_eq!(config.data.train_size, Rows::Exactly(100));
        });
    }

    #[test]
    fn a_recipe_cannot_be_called_as_trials_are() {
        let recipes =
            PROFILE.replace("[grid]", "[recipe.\"tuned\"]\n[grid]\nrecipes = [\"tuned\"]");
        let with_lora = recipes.replace("cells = [", "cells = [\n    { method = \"lora\" },");
        with_profile(&(with_lora + TRIALS), |path, catalog| {
            let profile = Profile::read(path).unwrap();
            let trials = profile.trials.as_ref().unwrap();
            let trial = &trials.before(&profile.cells[0])[0];
            let config = profile.resolve(trial, trials.seed, &[], catalog).unwrap();
            assert_eq!((config.recipe.as_str(), config.is_trial()), ("tuned, trial", true));
        });
        for name in ["trial", "tuned, trial"] {
            with_profile(&recipes.replace("tuned", name), |path, _| {
                let message = Profile::read(path).unwrap_err().to_string();
                let expected = format!("`recipe.{name}`: expected another name");
                assert!(message.contains(&expected), "{message}");
            });
        }
    }

    #[test]
    fn trials_give_each_method_as_many_candidates_and_have_a_seed_of_their_own() {
        let unequal = TRIALS
            .replace("{ \"training.learning_rate\" = 2e-5 }, ", "")
            .replace("seed = 9", "seed = 2")
            .replace("set = {", "sed = {");
        with_profile(&(PROFILE.to_owned() + &unequal), |path, _| {
            let message = Profile::read(path).unwrap_err().to_string();
            for expected in [
                "`trials.candidates.vanilla`: expected as many candidates for each method, so that \
                 none is tuned more than another; found lora 2, vanilla 1",
                "`grid.seeds`: expected seeds other than that of the trials",
                "`trials.sed`: unknown key; did you mean `seed`?",
            ] {
                assert!(message.contains(expected), "{expected}\nis not in\n{message}");
            }
        });
        let trials = TRIALS.replace("seed = 9", "seed = -9");
        let profile = PROFILE
            .replace("seeds = [1, 2]", "seeds = [0, 1]")
            .replace("cells = [", "cells = [\n    { method = \"lora\" },")
            + &trials;
        with_profile(&profile, |path, _| {
            let message = Profile::read(path).unwrap_err().to_string();
            assert!(
                message
                    .ends_with("`trials.seed`: expected an integer from 0, found the integer -9")
            );
            assert_eq!(message.lines().count(), 1, "{message}");
        });
    }

    #[test]
    fn recipes_and_overrides_that_name_nothing_are_refused_with_their_lines() {
        let profile = PROFILE
            .replace("[override.vanilla]", "[override.vanila]")
            .replace("seeds = [1, 2]", "seeds = [1, 2]\nrecipes = [\"papper\"]")
            .replace("[grid]", "[recipe.paper]\n[recipe.paper.override.lorra]\n[grid]");
        with_profile(&profile, |path, _| {
            let message = Profile::read(path).unwrap_err().to_string();
            assert!(message.starts_with("3 mistakes"), "{message}");
            for expected in [
                "toy.toml:28: `recipe.paper.override.lorra`: expected one of the methods adapter, \
                 lora, majority, tfidf, vanilla",
                "toy.toml:31: `grid.recipes`: expected one or more of paper, found \"papper\"",
                "toy.toml:36: `override.vanila`: expected one of the methods",
            ] {
                assert!(message.contains(expected), "{expected}\nis not in\n{message}");
            }
        });
        let profile = PROFILE.replace("[grid]", "[recipe.paper]\n[grid]");
        with_profile(&profile, |path, _| {
            let message = Profile::read(path).unwrap_err().to_string();
            assert!(message.contains("`grid.cells[0].recipes`: missing, here and in"), "{message}");
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

            let plain = resolve("lora", &["method.rank_pattern={}"]).unwrap();
            let MethodConfig::Lora(method) = &plain.method else { panic!() };
            assert!(method.rank_pattern.is_empty(), "an empty table takes the place of another");

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
            assert_ne!(start("a.bin", "weights"), start("c.bin", "others"));
        });
    }

    #[test]
    fn of_a_run_nothing_can_be_set_but_where_its_files_lie() {
        with_profile(PROFILE, |path, catalog| {
            let profile = Profile::read(path).unwrap();
            let config = profile.resolve(&Cell::of("adapter"), 7, &[], catalog).unwrap();
            let relocated = |set: &[&str]| {
                let set: Vec<String> = set.iter().map(|&set| set.to_owned()).collect();
                config.relocated(&set)
            };
            assert_eq!(relocated(&[]).unwrap(), config);
            let moved = relocated(&[
                "data.test.path=/mnt/test.txt",
                "method.sources.ko.path = ko.zip",
                "model.path=/mnt/model",
            ]);
            let moved = moved.unwrap();
            assert_eq!(
                (moved.identity(), &moved.data.train),
                (config.identity(), &config.data.train)
            );
            assert_eq!(moved.data.test.path, Path::new("/mnt/test.txt"));
            assert_eq!(moved.method.sources()[0].path, Path::new("ko.zip"));
            assert!(moved.to_toml().contains("path = \"/mnt/model\""), "{}", moved.to_toml());

            let message =
                |set: &str| relocated(&["data.train.path=x", set]).unwrap_err().to_string();
            assert_eq!(
                message("seed = 8"),
                "--set seed = 8: `seed`: expected a place of what the run read (data.train.path, \
                 data.test.path, model.path, method.sources.ko.path); all else is as it was run"
            );
            let sha256 = format!("data.train.sha256={}", "a".repeat(64));
            for (set, expected) in [
                (sha256.as_str(), "`data.train.sha256`: expected a place"),
                ("training.save_steps=5", "`training.save_steps`: expected a place"),
                ("data.train.pth=x", "did you mean `path`"),
                ("data.train", "expected `key=value`"),
            ] {
                assert!(message(set).contains(expected), "{}", message(set));
            }
        });
    }

    #[test]
    fn an_edit_of_a_methods_file_is_no_part_of_a_profile_that_was_read_before() {
        with_profile(PROFILE, |path, catalog| {
            let methods = path.with_file_name("methods");
            #[cfg(unix)]
            fs_err::os::unix::fs::symlink("nowhere", methods.join(".#lora.toml")).unwrap();
            let profile = Profile::read(path).unwrap();
            let resolve = |profile: &Profile| profile.resolve(&Cell::of("lora"), 7, &[], catalog);
            let before = resolve(&profile).unwrap();
            let lora = methods.join("lora.toml");
            fs_err::write(&lora, LORA.replace("rank = 16", "rank = 4")).unwrap();
            assert_eq!(resolve(&profile).unwrap(), before);
            assert_ne!(resolve(&Profile::read(path).unwrap()).unwrap(), before);
            fs_err::remove_file(lora).unwrap();
            assert_eq!(resolve(&profile).unwrap(), before);
        });
    }

    #[test]
    fn a_method_that_there_is_not_is_the_command_lines_and_hides_no_other_mistake() {
        let unknown = "--method vanila: `method`: expected one of the methods adapter, lora, majority, \
                       tfidf, vanilla, found \"vanila\"; did you mean `vanilla`?";
        with_profile(PROFILE, |path, catalog| {
            let profile = Profile::read(path).unwrap();
            let message = |set: &[&str]| {
                let set: Vec<String> = set.iter().map(|&set| set.to_owned()).collect();
                let cell = profile.cell("vanila", None).unwrap();
                profile.resolve(&cell, 7, &set, catalog).unwrap_err().to_string()
            };
            assert_eq!(message(&[]), unknown);
            // Which keys belong to it is not known.
            assert_eq!(message(&["method.rank=4", "method.start.from=nowhere"]), unknown);
            let rate = "--set training.learning_rate=2: `training.learning_rate`: expected a number \
                        above 0 to 1, found the integer 2";
            assert_eq!(
                message(&["training.learning_rate=2"]),
                format!("2 mistakes\n{unknown}\n{rate}")
            );
            let far = profile.resolve(&Cell::of("full"), 7, &[], catalog).unwrap_err().to_string();
            assert!(far.ends_with("tfidf, vanilla, found \"full\""), "{far}");
            let message = profile.cell("vanila", Some("best")).unwrap_err().to_string();
            let recipe = "--recipe: `recipe`: expected none, for the profile has no recipes, found \
                          \"best\"";
            assert_eq!(message, format!("2 mistakes\n{unknown}\n{recipe}"));
        });
    }

    #[test]
    fn a_method_that_there_is_not_is_told_at_the_line_of_its_cell() {
        let profile = PROFILE.replace("    { method = \"vanilla\" },", "    { method = \"lra\" },");
        with_profile(&profile, |path, _| {
            let message = Profile::read(path).unwrap_err().to_string();
            let expected = "toy.toml:30: `grid.cells[0].method`: expected one of the methods adapter, \
                            lora, majority, tfidf, vanilla, found \"lra\"; did you mean `lora`?";
            assert!(message.ends_with(expected), "{message}");
        });
        let profile =
            PROFILE.replace("[grid]\n", "[grid]\nbaselines = [\"majority\", \"tfidf\"]\n");
        with_profile(&profile, |path, _| {
            Profile::read(path).unwrap();
            fs_err::remove_file(path.with_file_name("methods").join("tfidf.toml")).unwrap();
            let message = Profile::read(path).unwrap_err().to_string();
            let expected = "toy.toml:28: `grid.baselines`: expected baselines among majority, found the \
                            array [\"majority\", \"tfidf\"]";
            assert!(message.ends_with(expected), "{message}");
        });
    }

    #[test]
    fn a_setup_with_a_mistake_is_told_before_its_sources_are_looked_for() {
        with_profile(PROFILE, |path, catalog| {
            let profile = Profile::read(path).unwrap();
            for (setup, mistake) in [
                ("[ko/wiki@ukp, nsmc]", "`[ko/wiki@ukp` is no adapter's name"),
                ("Stack(ko, nsmc", "a `)` is missing"),
            ] {
                let set = [
                    format!("method.setup={setup}"),
                    "method.sources.ko.from=nowhere".to_owned(),
                    "training.weight_decay=2".to_owned(),
                ];
                let error = profile.resolve(&Cell::of("adapter"), 7, &set, catalog).unwrap_err();
                let message = error.to_string();
                let expected = format!(
                    "--set method.setup={setup}: `method.setup`: expected adapters as AdapterHub \
                     writes them, for instance \"Fuse(ko, nsmc)\", found \"{setup}\": {mistake}"
                );
                assert!(message.contains(&expected), "{expected}\nis not in\n{message}");
                assert!(message.starts_with("2 mistakes\n"), "{message}");
                assert!(message.contains("`training.weight_decay`: expected"), "{message}");
            }
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
