use std::fmt::Display;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};
use burn::tensor::Device;
use clap::ValueEnum;
use nsmc_experiment::{
    MethodConfig, ModelConfig, RunRecord, create_folder_durably, rename_folder_durably,
};
use nsmc_peft::{LoraLayer, PeftModel};
use serde_json::Value;

use crate::args::{Export, Layout};
use crate::classifier::Classifier;
use crate::output::print;
use crate::{logging, model_card, provenance, run_directory};

/// Folder of the base model beside what was added to it.
const BASE: &str = "base";

/// Writes the model of a run. The folder appears whole or not at all.
pub(crate) fn run(args: &Export, verbosity: u8) -> Result<()> {
    logging::start(verbosity, None)?;
    let record = run_directory::record(&args.run, &args.moved.set)?;
    let layout = layout(args.format, &record)?;
    let out = place(&args.out, &std::env::current_dir()?)?;
    let classifier = Classifier::of_run(&args.run, &record, &Device::flex())?;
    let parent = parent(&out);
    create_folder_durably(parent)?;
    let room = tempfile::Builder::new().prefix(".export-").tempdir_in(parent)?;
    // A temporary folder is closed to other users; one in it is not.
    let incoming = room.path().join("model");
    fs_err::create_dir(&incoming)?;
    let base = |folder: &Path| Base::of(&record, &classifier.model, folder);
    write(layout, &base(&args.out), &record, &classifier, &incoming)?;
    let folder = Path::new(model_card::FOLDER);
    let base_of_card = base(folder);
    let load = how_to_load(layout, folder, &base_of_card, &classifier)?;
    let card = model_card::text(&args.run, &record, layout, &base_of_card, &load)?;
    fs_err::write(incoming.join("README.md"), card)?;
    if out.exists() {
        // It is empty.
        fs_err::remove_dir(&out)?;
    }
    rename_folder_durably(&incoming, &out)?;
    print(args.out.display())?;
    let (imports, load) = how_to_load(layout, &args.out, &base(&args.out), &classifier)?;
    if !imports.is_empty() {
        print(imports)?;
    }
    print(load)
}

/// The folder that will be put at `out`: behind a link, the one that it leads to. An empty folder makes
/// room for it, if it can be taken away.
fn place(out: &Path, current: &Path) -> Result<PathBuf> {
    if out.symlink_metadata().is_err() {
        return Ok(out.components().collect());
    }
    let refuse = |what: &str| bail!("{}: {what}; give another with `--out`", out.display());
    if !out.exists() {
        return refuse("a link to what is not there");
    }
    if !out.is_dir() || fs_err::read_dir(out)?.next().is_some() {
        return refuse("is there already");
    }
    let folder = fs_err::canonicalize(out)?;
    if folder == fs_err::canonicalize(current)? {
        return refuse("the folder that this was started in");
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let device = |folder: &Path| fs_err::metadata(folder).map(|metadata| metadata.dev());
        if device(&folder)? != device(parent(&folder))? {
            return refuse("a file system is mounted there, in which it can be a folder");
        }
    }
    Ok(folder)
}

fn parent(folder: &Path) -> &Path {
    folder.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."))
}

/// The layout that was asked for, if the run's method has it, or else the method's first.
fn layout(asked: Option<Layout>, record: &RunRecord) -> Result<Layout> {
    let method = &record.config.method;
    let layouts: &[Layout] = match method {
        MethodConfig::Vanilla | MethodConfig::HeadOnly(_) => &[Layout::Hf],
        MethodConfig::Lora(_) => &[Layout::Peft, Layout::Loralib, Layout::Merged],
        MethodConfig::Adapter(_) | MethodConfig::AdapterFusion(_) => &[Layout::Adapterhub],
        MethodConfig::Majority | MethodConfig::Tfidf(_) => {
            bail!("a run of the baseline `{}` has no model to write", method.name())
        }
    };
    let layout = asked.unwrap_or(layouts[0]);
    ensure!(
        layouts.contains(&layout),
        "`--format`: a run of the method `{}` can be written as {}",
        method.name(),
        layouts
            .iter()
            .filter_map(|layout| Some(layout.to_possible_value()?.get_name().to_owned()))
            .collect::<Vec<_>>()
            .join(", ")
    );
    Ok(layout)
}

/// The model beneath a run's.
pub(crate) enum Base {
    /// The hub's, at a commit: it is there as it is, and is not written again.
    Hub { name: String, commit: String },
    /// One that is written, too: it changed, lacked a pooler, which was then drawn, or is one of a
    /// folder, which may lie elsewhere tomorrow.
    Folder(String),
}

impl Base {
    /// That of a run, which is written beneath `folder` if it is written.
    fn of(record: &RunRecord, model: &PeftModel, folder: &Path) -> Self {
        match from_hub(&record.config.model) {
            Some((name, commit)) if !model.changes_base() => {
                Self::Hub { name: name.into(), commit: commit.into() }
            }
            _ => Self::Folder(folder.join(BASE).display().to_string()),
        }
    }

    /// What Python gives to `from_pretrained`.
    pub(crate) fn arguments(&self) -> String {
        match self {
            Self::Hub { name, commit } => format!("{}, revision={}", python(name), python(commit)),
            Self::Folder(place) => python(place),
        }
    }
}

/// The name and the commit of a model that came from the hub.
pub(crate) fn from_hub(model: &ModelConfig) -> Option<(&str, &str)> {
    match model {
        // A commit: a folder's revision is a sha256.
        ModelConfig::Pretrained { name, revision, .. } if provenance::is_hash(revision, 40) => {
            Some((name, revision))
        }
        _ => None,
    }
}

/// What `adapter_config.json` calls a base that lies beside it. PEFT takes a relative place from the folder
/// that Python was started in, so that none leads there from everywhere; the folder that it is written
/// to now is nothing to anybody else, and the model may be moved. With the dot at its beginning it is no
/// name on the hub either, where PEFT would take a stranger's model.
pub(crate) fn beside() -> String {
    format!("./{BASE}")
}

/// Writes the model into `folder`, and `base`, the one beneath it, if it is a folder's.
fn write(
    layout: Layout,
    base: &Base,
    record: &RunRecord,
    classifier: &Classifier,
    folder: &Path,
) -> Result<()> {
    let Classifier { config, model, tokenizer } = classifier;
    let max_length = record.config.data.max_length;
    let whole = |model: &PeftModel, folder: &Path| -> Result<()> {
        model.base.save_pretrained(folder, config)?;
        Ok(tokenizer.save(folder, max_length)?)
    };
    let write_base = || match base {
        Base::Hub { .. } => Ok(()),
        Base::Folder(_) => whole(model, &folder.join(BASE)),
    };
    match layout {
        Layout::Hf => whole(model, folder)?,
        Layout::Merged => {
            let merged = PeftModel::new(model.merged()?, config);
            whole(&merged, folder)?;
        }
        Layout::Peft => {
            let (base, revision) = match base {
                Base::Hub { name, commit } => (name.clone(), Some(commit.as_str())),
                Base::Folder(_) => (beside(), None),
            };
            model.save_peft(&base, revision, folder)?;
            tokenizer.save(folder, max_length)?;
            write_base()?;
        }
        Layout::Loralib => {
            model.save_loralib(&folder.join("lora.bin"))?;
            write_base()?;
        }
        Layout::Adapterhub => {
            model.save_setup(folder)?;
            tokenizer.save(folder, max_length)?;
            write_base()?;
        }
    }
    Ok(())
}

/// What Python imports to load a model, and the line that loads it; with loralib, words.
fn how_to_load(
    layout: Layout,
    out: &Path,
    base: &Base,
    classifier: &Classifier,
) -> Result<(&'static str, String)> {
    let (file, out) = (python(out.join("lora.bin").display()), python(out.display()));
    let (base, labels) = (base.arguments(), classifier.config.num_labels());
    let model =
        format!("BertForSequenceClassification.from_pretrained({base}, num_labels={labels})");
    let transformers = "from transformers import BertForSequenceClassification";
    Ok(match layout {
        Layout::Hf | Layout::Merged => {
            (transformers, format!("model = BertForSequenceClassification.from_pretrained({out})"))
        }
        Layout::Peft => (
            "from peft import PeftModel\nfrom transformers import BertForSequenceClassification",
            format!("model = PeftModel.from_pretrained({model}, {out})"),
        ),
        Layout::Loralib => (
            "",
            format!(
                "model.load_state_dict(torch.load({file}), strict=False), where model is \
                 {model} with its targeted layers replaced by loralib's, each with the weight and bias \
                 of the layer it replaces, {}",
                loralib_arguments(&lora_layers(&classifier.model)?)
            ),
        ),
        Layout::Adapterhub if classifier.model.head.is_some() => (
            "from adapters import BertAdapterModel",
            format!(
                "model = BertAdapterModel.from_pretrained({base}); \
                 model.load_adapter_setup({out}, set_active=True)"
            ),
        ),
        Layout::Adapterhub => (
            "import adapters\nfrom transformers import BertForSequenceClassification",
            format!(
                "model = {model}; adapters.init(model); \
                 model.load_adapter_setup({out}, set_active=True)"
            ),
        ),
    })
}

/// A text as Python writes it: a string of JSON is one of Python.
pub(crate) fn python(text: impl Display) -> String {
    Value::from(text.to_string()).to_string()
}

fn lora_layers(model: &PeftModel) -> Result<Vec<LoraLayer>> {
    let lora = model.adapters.lora.as_ref();
    let layers = lora.map(|lora| lora.config().layers(model.config().num_hidden_layers));
    Ok(layers.transpose()?.unwrap_or_default())
}

/// What loralib's layers are made with. A state dict holds no scale, and loralib's is always
/// `lora_alpha / r`.
fn loralib_arguments(layers: &[LoraLayer]) -> String {
    let mut groups: Vec<(String, Vec<String>)> = Vec::new();
    for layer in layers {
        let arguments = format!("r={}, lora_alpha={}", layer.rank, layer.loralib_alpha());
        let name = layer.site.name();
        match groups.iter_mut().find(|group| group.0 == arguments) {
            Some(group) => group.1.push(name),
            None => groups.push((arguments, vec![name])),
        }
    }
    // The largest group is the rest of the layers.
    groups.sort_by_key(|(_, names)| names.len());
    let Some((rest, _)) = groups.pop() else { return String::new() };
    let mut text: Vec<String> = groups
        .into_iter()
        .map(|(arguments, names)| format!("{arguments} for {}", names.join(", ")))
        .collect();
    let others = if text.is_empty() { "" } else { " for the others" };
    text.push(format!("{rest}{others}"));
    text.join("; ")
}

#[cfg(test)]
mod tests {
    use nsmc_data::BertTokenizer;
    use nsmc_peft::LoraConfig;

    use super::*;
    use crate::args::{ModelShape, Trained};
    use crate::bench;

    #[test]
    fn where_nothing_can_be_put_is_known_before() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["empty", "full", "current"] {
            fs_err::create_dir(at(name)).unwrap();
        }
        fs_err::write(at("full/file"), "").unwrap();
        let real = |name| fs_err::canonicalize(at(name)).unwrap();
        let place =
            |name: &str| place(&at(name), &at("current")).map_err(|error| error.to_string());
        assert_eq!(place("new/."), Ok(at("new")));
        assert_eq!(place("empty"), Ok(real("empty")));
        assert!(place("full").unwrap_err().contains("is there already"));
        assert!(place("full/file").unwrap_err().contains("is there already"));
        assert!(place("current/.").unwrap_err().contains("that this was started in; give another"));
        #[cfg(unix)]
        {
            use fs_err::os::unix::fs::symlink;
            symlink(at("empty"), at("link")).unwrap();
            symlink("nowhere", at("dangling")).unwrap();
            assert_eq!(place("link"), Ok(real("empty")));
            assert!(place("dangling").unwrap_err().contains("a link to what is not there"));
        }
    }

    #[test]
    fn a_folder_of_any_name_is_one_string_of_python() {
        let (_, config) = bench::config(ModelShape::Mini);
        let model = bench::model(Trained::Lora, 2, &config, &Device::flex()).unwrap();
        let tokenizer = BertTokenizer::train(&["영화"], 40).unwrap();
        let classifier = Classifier { config, tokenizer, model };
        let load = |layout, out: &str, base: &str| {
            let base = Base::Folder(base.into());
            how_to_load(layout, Path::new(out), &base, &classifier).unwrap().1
        };
        let peft = load(Layout::Peft, r"C:\new\모델", "a \"base\"");
        let expected = r#"from_pretrained("a \"base\"", num_labels=2), "C:\\new\\모델")"#;
        assert!(peft.ends_with(expected), "{peft}");
        let hf = load(Layout::Hf, "\"quoted\"", "");
        assert_eq!(hf, r#"model = BertForSequenceClassification.from_pretrained("\"quoted\"")"#);
        let loralib = load(Layout::Loralib, "a\\b", "base");
        assert!(loralib.contains(r#"torch.load("a\\b/lora.bin")"#), "{loralib}");
        assert!(loralib.contains(r#"from_pretrained("base", num_labels=2)"#), "{loralib}");
        let adapters = load(Layout::Adapterhub, "a\\b", "c\\d");
        assert!(adapters.contains(r#"from_pretrained("c\\d", num_labels=2)"#), "{adapters}");
        assert!(adapters.contains(r#"load_adapter_setup("a\\b", set_active"#), "{adapters}");
        let hub = Base::Hub { name: "google/bert".into(), commit: "0".repeat(40) };
        let (_, peft) = how_to_load(Layout::Peft, Path::new("a"), &hub, &classifier).unwrap();
        let expected = format!(r#"("google/bert", revision="{}", num_labels=2)"#, "0".repeat(40));
        assert!(peft.contains(&expected), "{peft}");
    }

    #[test]
    fn loralib_is_told_the_alpha_that_gives_the_scale() {
        let text = |config: &LoraConfig| loralib_arguments(&config.layers(2).unwrap());
        let config = LoraConfig::new(8, 32.0, &["query", "value"]);
        assert_eq!(text(&config), "r=8, lora_alpha=32");
        // 32 / √4 is 64 / 4.
        let config = LoraConfig { rank: 4, use_rslora: true, ..config };
        assert_eq!(text(&config), "r=4, lora_alpha=64");
        let config = LoraConfig {
            rank_pattern: [("layer.1.attention.self.query".into(), 16)].into(),
            ..config
        };
        assert_eq!(
            text(&config),
            "r=16, lora_alpha=128 for bert.encoder.layer.1.attention.self.query; r=4, \
             lora_alpha=64 for the others"
        );
    }
}
