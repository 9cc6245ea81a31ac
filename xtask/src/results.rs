use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Result, ensure};
use nsmc_eval::study::{Plan, PlannedRun, Study, collect};
use nsmc_experiment::{RunRecord, write_durably};

use crate::args::{DeviceChoice, Options, RUNS, Results, Source};
use crate::workspace::Workspace;
use crate::{grid, report, say, tables};

/// The profile of the paper's own cells and recipe.
const PAPER: &str = "paper";

pub(crate) fn run(workspace: &Workspace, args: &Results) -> Result<()> {
    let profile = workspace.profile(&args.profile)?;
    let seeds: Vec<u64> =
        args.seeds.map_or_else(|| profile.seeds.clone(), |seeds| (0..seeds).collect());
    let options = Options {
        profile: Some(profile.name.clone()),
        set: args.set.clone(),
        device: DeviceChoice::Cpu,
        runs: args.runs.clone(),
        source: Source::NETWORK,
    };
    let plan = grid::Plan::make(workspace, &profile, &seeds, &options)?;
    let waiting = plan.jobs.iter().filter(|job| !job.waits_for.is_empty()).count();
    ensure!(
        waiting == 0,
        "{waiting} runs of `{}` wait for trials that are not in {}: what they are is not known yet. \
         `{}` goes on with them",
        profile.name,
        args.runs.display(),
        command("reproduce", &profile.name, &options, args.seeds)
    );
    let grid = plan;
    let plan = plan_of(&grid);
    let default = Path::new("results").join(&profile.name);
    let folder = workspace.folder(args.out.as_deref().unwrap_or(&default));
    ensure!(
        holds_results_or_nothing(&folder)?,
        "{}: expected a folder of results, which has a {}, or none: what else lies in it would be \
         removed",
        folder.display(),
        Plan::FILE
    );
    let collection = collect(&plan, &workspace.folder(&args.runs), &folder)?;
    for failed in &collection.failed {
        say(&format!("failed: {failed}"));
    }
    for missing in &collection.missing {
        say(&format!("missing: {missing}"));
    }
    let (found, planned) =
        (collection.runs.len(), collection.runs.len() + collection.missing.len());
    let (wanted, but_baselines) = match found {
        0 => (planned, String::new()),
        _ => (
            planned - found,
            format!(
                " but {found} of baselines, which any `--set` of the training and any `--seeds` share; \
                 what {} holds stays as it is",
                folder.display()
            ),
        ),
    };
    ensure!(
        collection.written,
        "none of the {wanted} runs of `{}` is in {}{but_baselines}; `{}` runs them. Runs that were \
         made with other `--set`, `--seeds` or `--runs` are found with the same",
        profile.name,
        args.runs.display(),
        command("reproduce", &profile.name, &options, args.seeds)
    );
    keep_trials(&grid, &folder)?;
    let study = Study::read_results(&folder)?;
    write(workspace, &study, &workspace.folder(&args.runs), &folder)?;
    let unknown = study.runs().into_iter().filter(|run| !says_its_source(&run.record)).count();
    if unknown > 0 {
        say(&format!(
            "{unknown} runs do not say of which commit their program was: it was built outside of git"
        ));
    }
    say(&format!("{found} of {planned} runs, with tables and report, in {}", folder.display()));
    Ok(())
}

/// Whether results can be written into a folder: what is of no run of theirs is removed from it.
fn holds_results_or_nothing(folder: &Path) -> Result<bool> {
    Ok(!folder.exists()
        || folder.join(Plan::FILE).is_file()
        || fs_err::read_dir(folder)?.next().is_none())
}

fn says_its_source(record: &RunRecord) -> bool {
    record.provenance.as_ref().is_some_and(|provenance| provenance.commit.is_some())
}

/// Keeps the records of the trials that settings were chosen by, and no others. Their predictions are
/// in no table.
fn keep_trials(plan: &grid::Plan, folder: &Path) -> Result<()> {
    let folder = folder.join("trials");
    let mut kept = Vec::new();
    for job in plan.jobs.iter().filter(|job| job.cell.trial && job.run.is_done()) {
        let record = RunRecord::read(&job.run.folder.join("record.json"))?;
        let name = format!("{}.json", record.run_id);
        let record = RunRecord { config: record.config.without_paths(), ..record };
        fs_err::create_dir_all(&folder)?;
        record.write(&folder.join(&name))?;
        kept.push(name);
    }
    if !folder.is_dir() {
        return Ok(());
    }
    for entry in fs_err::read_dir(&folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        // A folder is none of ours.
        if path.is_file() && !kept.iter().any(|kept| *kept == name) {
            fs_err::remove_file(&path)?;
        }
    }
    Ok(())
}

/// Writes tables, report and plots of a study into the folder of its results. `runs` may hold the
/// directories of its runs.
pub(crate) fn write(
    workspace: &Workspace,
    study: &Study,
    runs: &Path,
    folder: &Path,
) -> Result<()> {
    for (name, render) in tables::FILES {
        write_durably(&folder.join(name), render(study))?;
    }
    let (page, plots) = (folder.join(report::FILE), folder.join(report::PLOTS));
    report::write(workspace, study, runs, &page, Some(&plots))
}

/// Prints the main tables of the runs just made, and writes their report beside them; says last
/// whether they are the paper's. `seeds` are those given in place of the profile's. A run that cannot be
/// read is an error when all of that is done: it counts as done, and no table has it.
pub(crate) fn present(
    workspace: &Workspace,
    plan: &grid::Plan,
    options: &Options,
    seeds: Option<u64>,
) -> Result<()> {
    let runs = workspace.folder(&options.runs);
    let study = Study::read_runs(&runs, Some(plan_of(plan)))?;
    for error in &study.unreadable {
        say(&format!("left out: {error}"));
    }
    for table in study.quality_tables().iter().chain(study.trouble_table().iter()) {
        tables::show(table);
    }
    let name = &plan.profile.name;
    let path = runs.join(format!("report-{name}.html"));
    report::write(workspace, &study, &runs, &path, None)?;
    let keeps = command("results", name, options, seeds);
    say(&format!("report: {}; `{keeps}` keeps all of it in results/{name}", path.display()));
    let not_those = not_the_papers(name, &options.set, &path);
    if let Some(not_those) = not_those.filter(|_| !study.is_of_own_data()) {
        say(&not_those);
    }
    let unreadable = &study.unreadable;
    ensure!(
        unreadable.is_empty(),
        "{} of {} runs cannot be read, and are in no table\n{}",
        unreadable.len(),
        plan.jobs.len(),
        unreadable.join("\n")
    );
    Ok(())
}

/// The task of `cargo xtask` that means the same runs, as a shell takes it.
fn command(task: &str, profile: &str, options: &Options, seeds: Option<u64>) -> String {
    let mut command = format!("cargo xtask {task} --profile {}", word(profile));
    if options.runs != Path::new(RUNS) {
        let _ = write!(command, " --runs {}", word(&options.runs.display().to_string()));
    }
    if let Some(seeds) = seeds {
        let _ = write!(command, " --seeds {seeds}");
    }
    for assignment in &options.set {
        let _ = write!(command, " --set {}", word(assignment));
    }
    command
}

/// A text as one word of a shell.
fn word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    match !text.is_empty() && text.chars().all(plain) {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

/// That numbers are not the paper's, how to get those, and where the report of these lies; none if
/// they are.
fn not_the_papers(profile: &str, set: &[String], report: &Path) -> Option<String> {
    let how = match (profile, set.is_empty()) {
        (PAPER, true) => return None,
        (PAPER, false) => {
            format!("`cargo xtask reproduce --profile {PAPER}` makes those, without `--set`")
        }
        _ => format!(
            "`cargo xtask reproduce --profile {PAPER}` makes those, with multilingual BERT on all of \
             NSMC, fetched or from `--mirror DIR`, and wants a GPU"
        ),
    };
    Some(format!(
        "These are not the paper's numbers: {how}; the report of these is {}.",
        report.display()
    ))
}

/// The rows of a profile's tables: its runs without those that only choose a configuration.
fn plan_of(plan: &grid::Plan) -> Plan {
    let rows = plan.rows().into_iter().map(|(job, recipe)| {
        let job = &plan.jobs[job];
        let row = PlannedRun { recipe: recipe.into(), ..PlannedRun::of(&job.run.config) };
        // What it will be its trials say: a run of what it is meanwhile is another.
        let known = job.waits_for.is_empty();
        if known { row } else { PlannedRun { identity: String::new(), ..row } }
    });
    Plan {
        profile: plan.profile.name.clone(),
        paper_scale: plan.profile.paper_scale,
        runs: rows.collect(),
    }
}

#[cfg(test)]
mod tests {
    #[cfg(unix)]
    use clap::Parser as _;

    use super::*;
    #[cfg(unix)]
    use crate::args::{Args, Command};

    /// The arguments of a command as `cargo xtask` gets them, by the rules of a shell.
    #[cfg(unix)]
    fn parsed(command: &str) -> Args {
        let echo = format!("{}; printf '%s\\0' \"$@\"", command.replacen("cargo", "set --", 1));
        let output = std::process::Command::new("sh").args(["-c", &echo]).output().unwrap();
        let words = String::from_utf8(output.stdout).unwrap();
        let words: Vec<&str> = words.split_terminator('\0').collect();
        Args::try_parse_from(words).unwrap_or_else(|error| panic!("{command}: {error}"))
    }

    #[cfg(unix)]
    #[test]
    fn the_command_that_is_printed_means_the_runs_that_were_made() {
        let options = |set: &[&str], runs: &str| Options {
            profile: None,
            set: set.iter().map(|&one| one.to_owned()).collect(),
            device: DeviceChoice::Auto,
            runs: runs.into(),
            source: Source::NETWORK,
        };
        let plain = options(&[], RUNS);
        assert_eq!(command("results", "mini", &plain, None), "cargo xtask results --profile mini");
        let sets = [
            "data.train_size=\"all\"",
            "data.dataset=sample",
            "method.trains=[\"head\", \"it's\"]",
            "a.b=$HOME",
        ];
        let made = options(&sets, "/tmp/my runs");
        for (options, seeds) in [(&plain, None), (&made, Some(3)), (&made, None)] {
            let Command::Results(results) =
                parsed(&command("results", "mini", options, seeds)).command
            else {
                panic!("another task")
            };
            assert_eq!(
                (results.profile.as_str(), &results.set, &results.runs, results.seeds),
                ("mini", &options.set, &options.runs, seeds)
            );
            let reproduce = parsed(&command("reproduce", "mini", options, seeds)).command;
            let Command::Reproduce(reproduce) = reproduce else { panic!("another task") };
            assert_eq!(reproduce.seeds, seeds);
            assert_eq!(
                (&reproduce.options.set, &reproduce.options.runs),
                (&options.set, &options.runs)
            );
        }
    }

    /// The offline profile takes the sample where its data cannot be fetched: that is no part of the
    /// profile.
    #[cfg(unix)]
    #[test]
    fn runs_on_the_sample_are_collected_by_the_command_that_is_printed() {
        let world = crate::grid::tests::World::new();
        let read = |name: &str| fs_err::read_to_string(world.path(name)).unwrap();
        let toy = read("configs/toy.toml");
        world.write("configs/mini.toml", toy.split("[trials]").next().unwrap());
        let toy = read("datasets/manifest.toml");
        let sample = toy.replace("[toy", "[sample");
        world.write("datasets/manifest.toml", &format!("{toy}{sample}"));
        let workspace = &world.workspace;
        let profile = workspace.profile("mini").unwrap();
        let options = crate::offline::with_data(workspace, &profile, &world.options).unwrap();
        assert_eq!(options.set.len(), 6, "{:?}", options.set);
        for own in ["data.dataset=toy", "\"data\".dataset=toy", "data = { dataset = \"toy\" }"] {
            let own = Options { set: vec![own.into()], ..world.options.clone() };
            let taken = crate::offline::with_data(workspace, &profile, &own).unwrap();
            assert_eq!(taken.set, own.set);
        }
        let made = grid::Plan::make(workspace, &profile, &[0, 1], &options).unwrap();
        let config = &made.jobs[0].run.config;
        assert_eq!(config.data.dataset, "sample");

        let printed = command("results", "mini", &options, Some(2));
        let Command::Results(results) = parsed(&printed).command else { panic!("{printed}") };
        world.write("results/mini/plots/mine.svg", "");
        let error = run(workspace, &results).unwrap_err().to_string();
        assert!(error.contains("expected a folder of results, which has a plan.json"), "{error}");
        assert!(world.path("results/mini/plots/mine.svg").is_file());
        fs_err::remove_dir_all(world.path("results")).unwrap();
        let error = run(workspace, &results).unwrap_err().to_string();
        let runs = made.jobs.len();
        assert!(
            error.contains(&format!("none of the {runs} runs of `mini` is in runs")),
            "{error}"
        );
        assert!(!world.path("results").exists());
        for job in &made.jobs {
            world.leaves(&job.run.config);
        }
        run(workspace, &results).unwrap();
        let plan = Plan::read(&world.path("results/mini/plan.json")).unwrap();
        let mut found: Vec<String> = plan.runs.iter().map(|run| run.run_id.clone()).collect();
        let mut expected: Vec<String> =
            made.jobs.iter().map(|job| job.run.config.run_id()).collect();
        found.sort();
        expected.sort();
        assert_eq!(found, expected);
    }

    /// A forgotten `--set`, or one too many, in a clone that has no runs: its baseline is there.
    #[cfg(unix)]
    #[test]
    fn results_of_which_a_baseline_alone_is_found_stay_as_they_are() {
        let world = crate::grid::tests::World::new();
        let toy = fs_err::read_to_string(world.path("configs/toy.toml")).unwrap();
        let toy = toy.split("[trials]").next().unwrap();
        world.write(
            "configs/own.toml",
            &toy.replace("[grid]\n", "[grid]\nbaselines = [\"majority\"]\n"),
        );
        let results = |set: &str| {
            let set: Vec<String> = set.split_whitespace().map(str::to_owned).collect();
            let printed =
                command("results", "own", &Options { set, ..world.options.clone() }, None);
            let Command::Results(results) = parsed(&printed).command else { panic!("{printed}") };
            run(&world.workspace, &results).map_err(|error| error.to_string())
        };
        let profile = world.workspace.profile("own").unwrap();
        let made = grid::Plan::make(&world.workspace, &profile, &[1, 2], &world.options).unwrap();
        made.jobs.iter().for_each(|job| world.leaves(&job.run.config));
        results("").unwrap();
        fs_err::remove_dir_all(world.path("runs")).unwrap();
        let plan = || fs_err::read_to_string(world.path("results/own/plan.json")).unwrap();
        let before = plan();
        let error = results("training.num_train_epochs=3").unwrap_err();
        for words in [
            "of `own` is in runs but 2 of baselines, which any `--set` of the training",
            "results/own holds stays as it is",
            "reproduce --profile own --set training.num_train_epochs=3` runs them",
        ] {
            assert!(error.contains(words), "{words}\nis not in\n{error}");
        }
        assert_eq!(plan(), before);
        // What was collected is a whole of its own.
        results("").unwrap();
        assert_eq!(plan(), before);
    }

    /// Of an earlier training with the profile's own rate, which may not be what trials will choose.
    #[cfg(unix)]
    #[test]
    fn a_cell_that_waits_for_its_trials_has_no_run_yet() {
        let world = crate::grid::tests::World::new();
        let plan = world.plan();
        let waiting = plan.jobs.iter().find(|job| !job.waits_for.is_empty()).unwrap();
        world.leaves(&waiting.run.config);
        world.leaves(&plan.jobs[0].run.config);
        let planned = plan_of(&plan);
        assert_eq!(planned.runs.len(), plan.rows().len());
        let study = Study::read_runs(&world.path("runs"), Some(planned)).unwrap();
        let found: Vec<&str> =
            study.runs().iter().map(|run| run.record.config.recipe.as_str()).collect();
        assert_eq!(found, ["plain"]);
    }

    #[cfg(unix)]
    #[test]
    fn the_trials_that_settings_were_chosen_by_are_kept() {
        let world = crate::grid::tests::World::new();
        let trials: Vec<String> = world
            .plan()
            .jobs
            .iter()
            .filter(|job| job.cell.trial)
            .map(|job| {
                world.leaves(&job.run.config);
                format!("{}.json", job.run.config.run_id())
            })
            .collect();
        assert!(trials.len() > 1);
        for job in &world.plan().jobs {
            assert!(job.waits_for.is_empty(), "the trials are done");
            world.leaves(&job.run.config);
        }
        let printed = command("results", "toy", &world.options, None);
        let Command::Results(results) = parsed(&printed).command else { panic!("{printed}") };
        run(&world.workspace, &results).unwrap();
        world.write("results/toy/trials/of-another-plan.json", "{}");
        let folder = world.path("results/toy/trials");
        let others = folder.join(".ipynb_checkpoints");
        fs_err::create_dir(&others).unwrap();
        run(&world.workspace, &results).unwrap();
        fs_err::remove_dir(others).unwrap();
        let mut found: Vec<String> = fs_err::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        let mut expected = trials;
        found.sort();
        expected.sort();
        assert_eq!(found, expected);
        let record = RunRecord::read(&folder.join(&found[0])).unwrap();
        assert_eq!(record.config, record.config.without_paths());
        assert!(record.results.is_some());
    }

    #[test]
    fn numbers_of_any_other_profile_or_setting_are_said_not_to_be_the_papers() {
        let said = |profile: &str, set: &[&str]| {
            let set: Vec<String> = set.iter().map(|&one| one.to_owned()).collect();
            not_the_papers(profile, &set, Path::new("runs/report.html"))
        };
        assert_eq!(said("paper", &[]), None);
        for (profile, set) in [
            ("mini", &[][..]),
            ("tuned", &[]),
            ("mini", &["data.dataset=sample"]),
            ("paper", &["seed=1"]),
        ] {
            let said = said(profile, set).unwrap();
            for words in ["not the paper's", "reproduce --profile paper", "runs/report.html"] {
                assert!(said.contains(words), "{profile} {set:?}: {said}");
            }
            assert_eq!(said.contains("--set"), profile == "paper", "{said}");
            assert!(!said.contains('\n'), "{said}");
        }
    }
}
