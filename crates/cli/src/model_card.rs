//! `README.md` of an exported model: the Hugging Face hub's model card.

use std::path::Path;

use anyhow::Result;
use nsmc_eval::{EvaluatedRun, results_table};
use nsmc_experiment::{ExperimentConfig, ModelConfig, Provenance, RunRecord, sha256_file};
use serde_json::json;

use crate::args::Layout;
use crate::export::{Base, beside, from_hub, python};

/// The folder of the model in the lines that load it.
pub(crate) const FOLDER: &str = "DIR";

/// A model card: what the hub reads about the model, how it is loaded and given texts, what it scored,
/// and the whole configuration that it was trained by. `base` is the model beneath it, and `load` what
/// Python imports and the line that loads it, all from [`FOLDER`].
pub(crate) fn text(
    run: &Path,
    record: &RunRecord,
    layout: Layout,
    base: &Base,
    (imports, load): &(&str, String),
) -> Result<String> {
    let config = without_folders(&record.config);
    let record = &RunRecord { config, ..record.clone() };
    let config = &record.config;
    let evaluated = evaluated(run, record)?;
    let (run_id, method) = (&record.run_id, config.method.label());
    let beneath = match &config.model {
        ModelConfig::Pretrained { name, .. } => format!("`{name}`"),
        ModelConfig::Scratch(_) => "a BERT from random weights".into(),
    };
    let dataset = &config.data.dataset;
    let labels = config.data.label_names.join(", ");
    let mut card = front_matter(record, layout, evaluated.as_ref());
    card += &format!("\n# {run_id}\n\n{method} of {beneath} on {dataset}: classes {labels}.\n");
    card += &match layout {
        // It takes more than a line.
        Layout::Loralib => format!("\n## Use\n\n{load}.\n"),
        _ => format!("\n## Use\n\n```python\n{imports}\n\n{load}\n```\n"),
    };
    card += &tokenizer(layout, base, config.data.max_length);
    card += &format!("\n`{FOLDER}` is this folder.\n");
    if let (Layout::Peft, Base::Folder(_)) = (layout, base) {
        card += &format!(
            "`adapter_config.json` calls the base `{}`, for no place holds wherever this folder lies: \
             what looks there for it, as PEFT's `AutoPeftModelForSequenceClassification` and the \
             `pipeline` of transformers do, finds it only if Python was started in this folder. The lines \
             above load it from anywhere.\n",
            beside()
        );
    }
    if let Some(run) = &evaluated {
        let reviews = run.report.as_ref().map_or(0, |report| report.confusion.total());
        let average = match config.data.labels.len() {
            2 => format!("of the class {}", config.data.label_names[1]),
            _ => "averages over the classes (macro)".into(),
        };
        card += &format!(
            "\n## Results\n\nOn {reviews} test texts; precision, recall and F1 are {average}.\n\n{}\n",
            results_table(std::slice::from_ref(run)).markdown()
        );
    }
    let commit = record.provenance.as_ref().and_then(Provenance::program);
    let program = commit.map(|commit| format!(", commit {commit}")).unwrap_or_default();
    card += &format!(
        "\n## Training\n\nTrained by nsmc {}{program}, on {}, with this configuration:\n\n\
         ```toml\n{}```\n",
        record.version,
        record.device,
        config.to_toml()
    );
    Ok(card)
}

/// How the model is given a text: cut as the texts were that it was trained on, for one that is longer
/// than its positions would end in an error.
fn tokenizer(layout: Layout, base: &Base, max_length: usize) -> String {
    let place = match layout {
        // It has no tokenizer of its own beside the state dict.
        Layout::Loralib => base.arguments(),
        _ => python(FOLDER),
    };
    format!(
        "\nA text is cut to {max_length} tokens, as in the training:\n\n```python\n\
         from transformers import AutoTokenizer\n\n\
         tokenizer = AutoTokenizer.from_pretrained({place})\n\
         model.eval()\n\
         inputs = tokenizer(text, truncation=True, max_length={max_length}, return_tensors=\"pt\")\n\
         logits = model(**inputs).logits\n```\n"
    )
}

/// The configuration without the machine's folders: what was given by its whole place is called as its
/// folder is.
fn without_folders(config: &ExperimentConfig) -> ExperimentConfig {
    let mut config = config.without_paths();
    let shorten = |place: &mut String| {
        let path = Path::new(place.as_str());
        if let (true, Some(name)) = (path.is_absolute(), path.file_name()) {
            *place = name.to_string_lossy().into_owned();
        }
    };
    if let ModelConfig::Pretrained { name, .. } = &mut config.model {
        shorten(name);
    }
    config.method.sources_mut().into_iter().for_each(|source| shorten(&mut source.from));
    config
}

/// The run with its metrics; none where its predictions are not there any more, or not those.
fn evaluated(run: &Path, record: &RunRecord) -> Result<Option<EvaluatedRun>> {
    let path = run.join("predictions.tsv");
    let found = path.is_file().then(|| sha256_file(&path)).transpose()?;
    let saved = record.results.as_ref().map(|results| &results.predictions_sha256);
    if found.is_none() || found.as_ref() != saved {
        let path = path.display();
        tracing::warn!(
            "{path}: not there, or not what the run wrote; the model card is without results"
        );
        return Ok(None);
    }
    let report = EvaluatedRun::read(run)?.report;
    Ok(Some(EvaluatedRun { record: record.clone(), report }))
}

fn front_matter(record: &RunRecord, layout: Layout, evaluated: Option<&EvaluatedRun>) -> String {
    let config = &record.config;
    let (library, tags): (_, &[&str]) = match layout {
        Layout::Hf | Layout::Merged => (Some("transformers"), &["bert"]),
        Layout::Peft => (Some("peft"), &["bert", "lora"]),
        Layout::Loralib => (None, &["bert", "lora"]),
        // The hub's name of the library adapters.
        Layout::Adapterhub => (Some("adapter-transformers"), &["bert", "adapter-transformers"]),
    };
    // A JSON value is one of YAML.
    let mut lines = vec!["---".to_owned()];
    let mut line = |key: &str, value: serde_json::Value| lines.push(format!("{key}: {value}"));
    if let Some(library) = library {
        line("library_name", json!(library));
    }
    if let Some((base, _)) = from_hub(&config.model) {
        line("base_model", json!(base));
    }
    line("pipeline_tag", json!("text-classification"));
    line("tags", json!(tags));
    if let Some(report) = evaluated.and_then(|run| run.report.as_ref()) {
        let metrics = report.binary.unwrap_or(report.macro_average);
        let rounded = |value: f64| (value * 1e4).round() / 1e4;
        let metric = |kind: &str, value| json!({"type": kind, "value": rounded(value)});
        let average = |kind: &str, value| match report.binary {
            Some(_) => metric(kind, value),
            None => {
                json!({"type": kind, "name": format!("{kind} (macro)"), "value": rounded(value)})
            }
        };
        let dataset = &config.data.dataset;
        line("metrics", json!(["accuracy", "precision", "recall", "f1"]));
        line(
            "model-index",
            json!([{
                "name": record.run_id,
                "results": [{
                    "task": {"type": "text-classification"},
                    "dataset": {"name": dataset, "type": dataset, "split": "test"},
                    "metrics": [
                        metric("accuracy", report.accuracy),
                        average("precision", metrics.precision),
                        average("recall", metrics.recall),
                        average("f1", metrics.f1),
                    ],
                }],
            }]),
        );
    }
    lines.push("---\n".into());
    lines.join("\n")
}
