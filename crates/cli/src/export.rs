use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};
use burn::tensor::Device;
use nsmc_experiment::{MethodConfig, ModelConfig, RunRecord};
use nsmc_peft::PeftModel;

use crate::args::{Export, Layout};
use crate::classifier::Classifier;
use crate::logging;
use crate::output::print;

/// Folder of the base model beside what was added to it.
const BASE: &str = "base";

/// Writes the model of a run. The folder appears whole or not at all.
pub(crate) fn run(args: &Export, verbosity: u8) -> Result<()> {
    logging::start(verbosity, None)?;
    let record = RunRecord::read(&args.run.join("record.json"))?;
    check_layout(args.format, &record)?;
    if args.out.exists() {
        let empty = args.out.is_dir() && fs_err::read_dir(&args.out)?.next().is_none();
        ensure!(empty, "{}: is there already; give another with `--out`", args.out.display());
        fs_err::remove_dir(&args.out)?;
    }
    let classifier = Classifier::of_run(&args.run, &record, &Device::flex())?;
    let incoming = partial(&args.out);
    if incoming.exists() {
        fs_err::remove_dir_all(&incoming)?;
    }
    fs_err::create_dir_all(&incoming)?;
    let base = write(args, &record, &classifier, &incoming)?;
    fs_err::rename(&incoming, &args.out)?;
    print(args.out.display())?;
    print(how_to_load(args, &base))
}

/// The name of a folder that is being written.
fn partial(folder: &Path) -> PathBuf {
    let mut name = folder.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    folder.with_file_name(name)
}

fn check_layout(layout: Layout, record: &RunRecord) -> Result<()> {
    let method = &record.config.method;
    let (fits, layouts) = match method {
        MethodConfig::Vanilla => (matches!(layout, Layout::Hf), "hf"),
        MethodConfig::Lora(_) => (
            matches!(layout, Layout::Peft | Layout::Loralib | Layout::Merged),
            "peft, loralib or merged",
        ),
        MethodConfig::Adapter(_) | MethodConfig::AdapterFusion(_) => {
            (matches!(layout, Layout::Adapterhub), "adapterhub")
        }
    };
    if !fits {
        bail!("`--format`: a run of the method `{}` can be written as {layouts}", method.name());
    }
    Ok(())
}

/// Writes the model into `folder`, and returns the name or the folder of the model beneath it.
fn write(
    args: &Export,
    record: &RunRecord,
    classifier: &Classifier,
    folder: &Path,
) -> Result<String> {
    let Classifier { config, model, tokenizer } = classifier;
    let max_length = record.config.data.max_length;
    let whole = |model: &PeftModel, folder: &Path| -> Result<()> {
        model.base.save_pretrained(folder, config)?;
        Ok(tokenizer.save(folder, max_length)?)
    };
    // A base that is on the hub as it is need not be written again.
    let base = match &record.config.model {
        ModelConfig::Pretrained { name, path, .. } if !trained_base(model) => {
            if Path::new(name) == path { path.display().to_string() } else { name.clone() }
        }
        _ => args.out.join(BASE).display().to_string(),
    };
    let write_base = || match base.ends_with(BASE) {
        true => whole(model, &folder.join(BASE)),
        false => Ok(()),
    };
    match args.format {
        Layout::Hf => whole(model, folder)?,
        Layout::Merged => {
            let merged = PeftModel::new(model.merged()?, config);
            whole(&merged, folder)?;
        }
        Layout::Peft => {
            model.save_peft(&base, folder)?;
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
    Ok(base)
}

/// Whether weights of the encoder were trained with the method.
fn trained_base(model: &PeftModel) -> bool {
    model.trainable_paths().iter().any(|path| path.starts_with("base.bert."))
}

fn how_to_load(args: &Export, base: &str) -> String {
    let out = args.out.display();
    match args.format {
        Layout::Hf | Layout::Merged => {
            format!("BertForSequenceClassification.from_pretrained(\"{out}\")")
        }
        Layout::Peft => format!(
            "PeftModel.from_pretrained(BertForSequenceClassification.from_pretrained(\"{base}\"), \
             \"{out}\")"
        ),
        Layout::Loralib => format!(
            "model.load_state_dict(torch.load(\"{out}/lora.bin\"), strict=False), over \"{base}\" \
             with its targeted layers replaced by loralib's"
        ),
        Layout::Adapterhub => format!(
            "adapters.init(model), model.load_adapter_setup(\"{out}\", set_active=True), over \
             \"{base}\""
        ),
    }
}
