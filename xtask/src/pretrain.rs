use std::ffi::OsString;

use anyhow::{Context, Result, ensure};
use nsmc_experiment::PretrainingConfig;

use crate::args::Pretrain;
use crate::download;
use crate::grid::Stop;
use crate::holder::{Attempt, Holder, PATIENCE, patiently};
use crate::nsmc::Nsmc;
use crate::workspace::Workspace;

/// The data set whose crawl is pre-trained on.
const DATASET: &str = "nsmc";

/// A model of the same shape either way: what a GPU makes in minutes, or what a CPU makes in hours.
fn default_profile(cuda: bool) -> &'static str {
    if cuda { "mini" } else { "mini-cpu" }
}

pub(crate) fn run(workspace: &Workspace, args: &Pretrain) -> Result<()> {
    let name = args.profile.as_deref().unwrap_or(default_profile(args.device.is_cuda()));
    let profile = workspace.root.join("configs/pretraining").join(format!("{name}.toml"));
    ensure!(profile.is_file(), "`--profile {name}`: {} is no file", profile.display());
    let datasets = workspace.datasets()?;
    let entry = datasets.datasets.get(DATASET).context("datasets/manifest.toml: no nsmc")?;
    let raw = entry.raw.as_ref().context("datasets/manifest.toml: no [nsmc.raw]")?;
    download::dataset(workspace, DATASET, entry, &args.source)?;
    download::raw(workspace, DATASET, raw, &args.source)?;

    let folder = Workspace::datasets_folder().join(DATASET);
    let (archive, test) = (folder.join(&raw.name), folder.join(&entry.test.name));
    let (root, sha256) = (&workspace.root, &raw.corpus_sha256);
    let config = PretrainingConfig::read_profile(&profile, root, &archive, &test, sha256)?;
    let out = args.out.clone().unwrap_or_else(|| format!("runs/pretraining-{name}").into());
    let out = workspace.folder(&out);
    let nsmc = Nsmc::build(workspace, args.device)?;
    // Not before: what is fetched and built until here ends with a signal, as any program does.
    let stop = Stop::on_signal()?;
    fs_err::create_dir_all(&out)?;
    let name = out.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let lock = out.with_file_name(format!(".{name}.lock"));
    let what = out.display().to_string();
    let _lock = patiently(&what, &stop, PATIENCE, || Holder::lock(&lock))?;
    // That of an xtask that was killed.
    patiently(&what, &stop, PATIENCE, || {
        Ok(Holder::of(&out)?.map_or(Attempt::Made(()), Attempt::Held))
    })?;
    let resolved = out.with_file_name(format!(".{name}.resolved.toml"));
    fs_err::write(&resolved, config.to_toml())?;
    let mut arguments = vec![OsString::from("pretrain")];
    arguments.extend(["--config".into(), resolved.clone().into()]);
    arguments.extend(["--out".into(), out.into()]);
    let outcome = nsmc.run(workspace, &arguments, &stop);
    let removed = fs_err::remove_file(resolved);
    // Why it failed goes first.
    outcome?;
    Ok(removed?)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use nsmc_experiment::ModelConfig;

    use super::*;

    #[test]
    fn both_default_profiles_are_there_and_make_the_same_model() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let shapes = [true, false].map(|cuda| {
            let name = format!("configs/pretraining/{}.toml", default_profile(cuda));
            let (archive, test) = (Path::new("archive"), Path::new("test"));
            let sha256 = "0".repeat(64);
            let config =
                PretrainingConfig::read_profile(&root.join(name), root, archive, test, &sha256);
            let ModelConfig::Scratch(shape) = config.unwrap().model else { panic!() };
            shape
        });
        assert_eq!(shapes[0], shapes[1]);
    }
}
