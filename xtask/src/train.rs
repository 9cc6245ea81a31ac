use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use nsmc_eval::{EvaluatedRun, paper_table, results_table};
use nsmc_experiment::{
    Cell, ConfigError, ExperimentConfig, FileLock, ModelConfig, Profile, RunRecord, RunStatus,
};

use crate::args::{Options, Source, Train};
use crate::grid::Stop;
use crate::holder::{Attempt, Holder, PATIENCE, patiently};
use crate::nsmc::Nsmc;
use crate::workspace::Workspace;
use crate::{download, hub, offline, preflight, print, say};

pub(crate) fn run(workspace: &Workspace, args: &Train) -> Result<()> {
    let profile = workspace.chosen_profile(&args.options)?;
    let gpus = args.options.device.gpus(&args.devices)?;
    let seed = args.seed.unwrap_or(profile.seeds[0]);
    let cell = profile.cell(&args.method, args.recipe.as_deref())?;
    // What is mistyped is told before anything is fetched.
    Run::resolve(workspace, &profile, &cell, seed, &args.options)?;
    let options = &offline::with_data(workspace, &profile, &args.options)?;
    let run = Run::resolve(workspace, &profile, &cell, seed, options)?;
    if run.is_done() && !args.again {
        say(&format!(
            "{} is done; `--again` runs it anew",
            run.folder.strip_prefix(&workspace.root).unwrap_or(&run.folder).display()
        ));
        let run = EvaluatedRun::read(&run.folder)?;
        print(&results_table(std::slice::from_ref(&run)).for_stdout());
        if let Some(table) = paper_table(&[run]) {
            print(&table.for_stdout());
        }
        return Ok(());
    }
    run.fetch(workspace, &options.source)?;
    let run = Run::resolve(workspace, &profile, &cell, seed, options)?;
    preflight::files(workspace, &run.config)?;
    let nsmc = Nsmc::build(workspace, args.options.device)?;
    // Not before: what is fetched and built until here ends with a signal, as any program does. And not
    // under the dashboard, which has the terminal to itself, and gets its signals.
    let stop = if args.tui { Stop::default() } else { Stop::on_signal()? };
    run.start(workspace, &nsmc.on(gpus), args.again, args.tui, &stop)
}

/// One run of a profile, resolved.
#[derive(Clone)]
pub(crate) struct Run {
    pub(crate) config: ExperimentConfig,
    pub(crate) folder: PathBuf,
}

impl Run {
    pub(crate) fn resolve(
        workspace: &Workspace,
        profile: &Profile,
        cell: &Cell,
        seed: u64,
        options: &Options,
    ) -> Result<Self> {
        let config = workspace
            .with_catalog(|catalog| Ok(profile.resolve(cell, seed, &options.set, catalog)?))?;
        preflight::sizes(workspace, &config)?;
        let folder = workspace.folder(&options.runs).join(config.run_id());
        Ok(Self { config, folder })
    }

    /// Whether the run has been run to its end.
    pub(crate) fn is_done(&self) -> bool {
        is_done(&self.folder, &self.config.identity())
    }

    /// Whether the run is done, but no table can have it, for its predictions are gone. `nsmc train`
    /// refuses the directory of a run that is done: it is to be run anew, and whether what else is in
    /// it may go is not for a program to say.
    pub(crate) fn lacks_predictions(&self) -> bool {
        self.is_done() && !self.folder.join("predictions.tsv").is_file()
    }

    /// Whether the run was begun and goes on, by `config.toml`. One that is damaged, missing or cannot
    /// be read does not say that a run directory is another's: `nsmc train` mends it by the directory's
    /// other files, or refuses the directory.
    pub(crate) fn is_begun(&self) -> bool {
        match self.found() {
            Ok(found) => found.identity() == self.config.identity(),
            Err(_) => match fs_err::read_dir(&self.folder) {
                // What a process leaves that was killed before it had written a configuration.
                Ok(mut entries) => entries.any(|entry| {
                    let name = entry.map(|entry| entry.file_name()).unwrap_or_default();
                    name != ".lock" && name != "config.toml.partial"
                }),
                Err(error) => error.kind() != ErrorKind::NotFound,
            },
        }
    }

    /// Whether the run directory is another run's, by a configuration that can be read.
    fn is_anothers(&self) -> bool {
        self.found().is_ok_and(|found| found.identity() != self.config.identity())
    }

    /// The configuration in the run directory.
    fn found(&self) -> Result<ExperimentConfig, ConfigError> {
        ExperimentConfig::read(&self.folder.join("config.toml"))
    }

    /// Why the run failed; none if it did not, or is not known to have.
    pub(crate) fn failure(&self) -> Option<String> {
        let record = RunRecord::read(&self.folder.join("record.json")).ok()?;
        match record.status {
            RunStatus::Failed { error } if record.identity == self.config.identity() => Some(error),
            _ => None,
        }
    }

    /// Where the configuration lies that its process is started with.
    pub(crate) fn started_with(&self) -> PathBuf {
        self.folder.with_file_name(format!("{}.toml", self.config.run_id()))
    }

    /// What must be fetched before the run can start, in words.
    pub(crate) fn missing(&self, workspace: &Workspace) -> Vec<String> {
        let data = &self.config.data;
        let files = [&data.train, &data.test];
        let mut missing = Vec::new();
        if files.iter().any(|file| !workspace.root.join(&file.path).is_file()) {
            missing.push(data.dataset.clone());
        }
        missing.extend(self.missing_model(workspace).map(str::to_owned));
        for source in self.config.method.sources() {
            if !workspace.root.join(&source.path).exists() {
                missing.push(source.from.clone());
            }
        }
        missing
    }

    /// The model that is not on this machine: its place is not known then.
    fn missing_model(&self, workspace: &Workspace) -> Option<&str> {
        match &self.config.model {
            _ if self.config.method.is_baseline() => None,
            ModelConfig::Pretrained { name, path, .. }
                if path.as_os_str().is_empty() || !workspace.root.join(path).is_dir() =>
            {
                Some(name)
            }
            _ => None,
        }
    }

    /// The names of what the run reads: data set, model, adapters.
    pub(crate) fn needs(&self) -> Vec<String> {
        let mut needs = vec![self.config.data.dataset.clone()];
        if let ModelConfig::Pretrained { name, .. } = &self.config.model
            && !self.config.method.is_baseline()
        {
            needs.push(name.clone());
        }
        needs.extend(self.config.method.sources().iter().map(|source| source.from.clone()));
        needs
    }

    /// Fetches what the run needs; it is to be resolved again with the places it lies at.
    pub(crate) fn fetch(&self, workspace: &Workspace, from: &Source) -> Result<()> {
        let data = &self.config.data;
        let datasets = workspace.datasets()?.datasets;
        let entry = datasets.get(&data.dataset);
        if let Some(entry) = entry {
            download::dataset(workspace, &data.dataset, entry, from)?;
        }
        for (key, file) in [("data.train.path", &data.train), ("data.test.path", &data.test)] {
            let unknown = match entry {
                Some(_) => String::new(),
                None => format!(", and no \"{}\" in datasets/manifest.toml to fetch", data.dataset),
            };
            ensure!(
                workspace.root.join(&file.path).is_file(),
                "`{key}`: {}: no such file{unknown}",
                file.path.display()
            );
        }
        if let Some(name) = self.missing_model(workspace)
            && let Some(entry) = workspace.models()?.models.get(name)
        {
            hub::fetch(workspace, name, entry)?;
        }
        let adapters = workspace.models()?.adapters;
        for source in self.config.method.sources() {
            if let Some(entry) = adapters.get(&source.from) {
                download::adapter(workspace, &source.from, entry, from)?;
            }
        }
        Ok(())
    }

    /// Keeps every other xtask from removing or starting the run.
    fn lock(&self) -> Result<Attempt<FileLock>> {
        let path = self.lock_file();
        fs_err::create_dir_all(path.parent().unwrap_or(&path))?;
        Holder::lock(&path)
    }

    fn lock_file(&self) -> PathBuf {
        self.folder.with_file_name(format!(".{}.lock", self.config.run_id()))
    }

    /// Removes an older run, if there is one, and what an xtask that was killed left of another. It is
    /// put into a folder aside first, where no half of it is gone on from, or stands in a table.
    fn remove_older(&self, is_there: bool) -> Result<()> {
        let id = self.config.run_id();
        // Each run's own: others may be removed at the same time.
        let aside = self.folder.with_file_name(format!(".removed-{id}"));
        let remove = || match aside.exists() {
            true => fs_err::remove_dir_all(&aside),
            false => Ok(()),
        };
        remove()?;
        if is_there {
            say(&format!("{}: removing an older run", self.folder.display()));
            fs_err::create_dir(&aside)?;
            fs_err::rename(&self.folder, aside.join(id))?;
            remove()?;
        }
        Ok(())
    }

    /// Makes ready to run it, unless another process is at work on it; none if it is done and not to
    /// be run `again`.
    pub(crate) fn prepare(&self, again: bool) -> Result<Attempt<Option<Prepared>>> {
        let lock = match self.lock()? {
            Attempt::Made(lock) => lock,
            Attempt::Held(holder) => return Ok(Attempt::Held(holder)),
        };
        // The run of an xtask that was killed, or one that somebody started without xtask.
        if let Some(holder) = Holder::of(&self.folder)? {
            return Ok(Attempt::Held(holder));
        }
        // Another process may have run it since the plan was made.
        if self.is_done() && !again {
            self.sweep()?;
            return Ok(Attempt::Made(None));
        }
        // A run that was stopped goes on where it was; whether a directory whose configuration cannot
        // be read is that of such a run, `nsmc` finds out.
        self.remove_older(self.is_anothers() || self.is_done())?;
        let resolved = self.started_with();
        fs_err::write(&resolved, self.config.to_toml())?;
        let path = |path: &Path| OsString::from(path);
        let arguments = vec![
            OsString::from("train"),
            "--config".into(),
            path(&resolved),
            "--out".into(),
            path(&self.folder),
        ];
        Ok(Attempt::Made(Some(Prepared { resolved, arguments, _lock: lock })))
    }

    /// The same, waiting for another process that is at work on it.
    pub(crate) fn prepare_patiently(&self, again: bool, stop: &Stop) -> Result<Option<Prepared>> {
        let what = format!("run {}", self.config.run_id());
        patiently(&what, stop, PATIENCE, || self.prepare(again))
    }

    /// Removes what an xtask that was killed leaves of a finished run: the configuration that it was
    /// started with, of which the run directory has its own copy, and the file of the lock.
    pub(crate) fn sweep(&self) -> Result<()> {
        remove_if_there(&self.started_with())?;
        if self.lock_file().is_file() {
            // Its file goes with the lock, unless another process holds it.
            drop(self.lock()?);
        }
        Ok(())
    }

    /// Runs it to its end as a process of `nsmc`. One that is done is left alone, unless it is to be
    /// run `again`.
    pub(crate) fn start(
        &self,
        workspace: &Workspace,
        nsmc: &Nsmc,
        again: bool,
        tui: bool,
        stop: &Stop,
    ) -> Result<()> {
        let Some(mut prepared) = self.prepare_patiently(again, stop)? else { return Ok(()) };
        let outcome = if tui {
            prepared.arguments.push("--tui".into());
            nsmc.run_at_terminal(workspace, &prepared.arguments)
        } else {
            nsmc.run(workspace, &prepared.arguments, stop)
        };
        let closed = prepared.close();
        // Why it failed goes first.
        outcome.with_context(|| format!("run {}", self.config.run_id()))?;
        closed
    }
}

/// Whether the run of an identity has been run to its end in a run directory.
pub(crate) fn is_done(folder: &Path, identity: &str) -> bool {
    RunRecord::read(&folder.join("record.json"))
        .is_ok_and(|record| record.status == RunStatus::Success && record.identity == identity)
}

/// A run about to start, locked.
pub(crate) struct Prepared {
    /// The arguments of `nsmc`.
    pub(crate) arguments: Vec<OsString>,
    /// The file with its configuration.
    resolved: PathBuf,
    _lock: FileLock,
}

impl Prepared {
    /// To be called when the run has ended: the run directory has its own copy.
    pub(crate) fn close(self) -> Result<()> {
        remove_if_there(&self.resolved)
    }
}

/// Another grid over the same runs may have swept it already.
fn remove_if_there(path: &Path) -> Result<()> {
    match fs_err::remove_file(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        removed => Ok(removed?),
    }
}

#[cfg(test)]
mod tests {
    use nsmc_eval::PAPER;

    use super::*;

    #[test]
    fn a_model_whose_place_is_not_known_is_missing() {
        let workspace = Workspace::find();
        let profile = workspace.profile("paper").unwrap();
        let catalog = |catalog: nsmc_experiment::Catalog<'_>| {
            // As on a machine that has no model.
            let catalog = nsmc_experiment::Catalog { model_folder: &|_| None, ..catalog };
            Ok(profile.resolve(&Cell::of("vanilla"), 0, &[], catalog)?)
        };
        let config = workspace.with_catalog(catalog).unwrap();
        let mut run = Run { config, folder: "runs/none".into() };
        let missing = run.missing(&workspace);
        assert!(missing.contains(&"bert-base-multilingual-cased".to_owned()), "{missing:?}");
        if let ModelConfig::Pretrained { path, .. } = &mut run.config.model {
            *path = "models/mini".into();
        }
        assert_eq!(run.missing_model(&workspace), None);
    }

    #[test]
    fn data_that_cannot_be_fetched_is_told_before_a_run_starts() {
        let workspace = Workspace::find();
        let profile = workspace.profile("mini").unwrap();
        let resolve = |catalog: nsmc_experiment::Catalog<'_>| {
            Ok(profile.resolve(&Cell::of("majority"), 0, &[], catalog)?)
        };
        let mut config = workspace.with_catalog(resolve).unwrap();
        config.data.dataset = "mine".into();
        config.data.train.path = "Cargo.toml".into();
        config.data.test.path = "datasets/mine/tset.csv".into();
        let run = Run { config, folder: "runs/none".into() };
        let error = run.fetch(&workspace, &Source::NETWORK).unwrap_err().to_string();
        let expected = "`data.test.path`: datasets/mine/tset.csv: no such file, and no \"mine\" in \
                        datasets/manifest.toml to fetch";
        assert_eq!(error, expected);
    }

    #[test]
    fn the_papers_cells_are_those_of_its_tables_and_the_frozen_models_classifier_follows() {
        let workspace = Workspace::find();
        for name in ["paper", "tuned"] {
            let profile = workspace.profile(name).unwrap();
            let mut cells = Vec::new();
            for cell in &profile.cells {
                let catalog = |catalog: nsmc_experiment::Catalog<'_>| {
                    let catalog = nsmc_experiment::Catalog { model_folder: &|_| None, ..catalog };
                    Ok(profile.resolve(cell, 42, &[], catalog)?)
                };
                let config = workspace.with_catalog(catalog).unwrap();
                assert_eq!(config.recipe, name);
                let method = config.method.name().to_owned();
                cells.push((method, config.method.rank(), config.data.train_size.to_string()));
            }
            let cell =
                |method: &str, rank, size: usize| (method.to_owned(), rank, size.to_string());
            let mut expected: Vec<_> =
                PAPER.iter().map(|row| cell(row.method.name(), row.rank, row.train_size)).collect();
            expected.push(cell("head", None, 150_000));
            assert_eq!(cells, expected, "{name}");
        }
    }
}
