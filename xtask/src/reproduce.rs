use std::collections::BTreeMap;

use anyhow::{Result, ensure};

use crate::args::{Launcher, Options, Reproduce};
use crate::grid::{
    self, AtOnce, Costs, Kept, Outcome, Plan, Starting, Stop, Timed, show, time, to_time,
};
use crate::holder::PATIENCE;
use crate::nsmc::Nsmc;
use crate::slurm::Submitting;
use crate::workspace::Workspace;
use crate::{offline, results, say, slurm};

pub(crate) fn run(workspace: &Workspace, args: &Reproduce) -> Result<()> {
    let profile = workspace.chosen_profile(&args.options)?;
    let gpus = gpus(args)?;
    let seeds: Vec<u64> =
        args.seeds.map_or_else(|| profile.seeds.clone(), |seeds| (0..seeds).collect());
    let mut options = args.options.clone();
    // What is mistyped is told before anything is fetched.
    let mut plan = Plan::make(workspace, &profile, &seeds, &options)?;
    if !args.dry_run {
        let with_data = offline::with_data(workspace, &profile, &options)?;
        if with_data.set != options.set {
            plan = Plan::make(workspace, &profile, &seeds, &with_data)?;
        }
        options = with_data;
    }
    let (runs_folder, jobs) =
        (workspace.folder(&options.runs), usize::from(args.jobs.unwrap_or(1)));
    let at_once = jobs * gpus.len().max(1);
    let threads = threads_of_each(at_once);
    let costs = Costs::of(workspace, &plan, &runs_folder, options.device.is_cuda(), threads)?;
    let at_slurm = args.launcher == Launcher::Slurm && slurm::is_queued(&plan, &runs_folder)?;
    if args.dry_run || !at_slurm {
        show(workspace, &plan, &costs, &runs_folder, &AtOnce { jobs, gpus: gpus.len() })?;
    }
    if args.dry_run {
        return Ok(());
    }
    if args.launcher == Launcher::Slurm {
        let submitting = Submitting {
            workspace,
            options: &options,
            sbatch: &args.slurm_options,
            at_once: args.jobs,
        };
        slurm::reproduce(&mut plan, &submitting)?;
        return match plan.done() {
            0 => Ok(()),
            _ => results::present(workspace, &plan, &options, args.seeds),
        };
    }

    let threads = (at_once > 1).then_some(threads);
    let mut ended = Ended::default();
    if plan.is_open() || !shared(&plan, threads, &options).is_empty() {
        let failed = plan.fetch(workspace, &options);
        // At once, for it may take hours until a grid is at its end.
        for (why, runs) in reasons(&failed) {
            say(&format!("{runs} of {} runs cannot start: {why}", plan.jobs.len()));
        }
        ensure!(failed.len() < plan.jobs.len(), "nothing was built: no run can start");
        let nsmc = Nsmc::build(workspace, options.device)?;
        let starting = Starting {
            workspace,
            options: &options,
            nsmc: &nsmc,
            jobs,
            gpus,
            threads,
            stop: Stop::on_signal()?,
            patience: PATIENCE,
        };
        ended = here(&mut plan, &starting, &costs.seconds(), failed)?;
    }
    finish(workspace, &plan, &options, args.seeds, &ended)
}

/// Why runs cannot start, each reason once, and of how many it is that.
fn reasons(failed: &BTreeMap<usize, String>) -> BTreeMap<&str, usize> {
    let mut reasons = BTreeMap::new();
    for why in failed.values() {
        *reasons.entry(why.as_str()).or_default() += 1;
    }
    reasons
}

/// What became of a grid on this machine, beside its runs.
#[derive(Debug, Default)]
struct Ended {
    outcome: Outcome,
    timed: Timed,
}

/// The runs whose times are those of runs that shared the machine; none if each has it to itself.
fn shared(plan: &Plan, threads: Option<usize>, options: &Options) -> Vec<usize> {
    threads.map_or_else(Vec::new, |threads| to_time(plan, threads, options.device.is_cuda()))
}

/// Runs what of a plan is open on this machine, and measures again what shared it, all with the
/// program as it is now.
fn here(
    plan: &mut Plan,
    starting: &Starting<'_>,
    seconds: &[Option<f64>],
    failed: BTreeMap<usize, String>,
) -> Result<Ended> {
    let Starting { workspace, options, gpus, threads, .. } = *starting;
    let kept = Kept::of(starting.nsmc, &workspace.folder(&options.runs))?;
    let starting = Starting { nsmc: &kept.nsmc, stop: starting.stop.clone(), ..*starting };
    let outcome = grid::run(plan, &starting, seconds, failed);
    ensure!(
        !outcome.stopped,
        "stopped: {} of {} runs are done; the same command goes on",
        plan.done(),
        plan.jobs.len()
    );
    let mut timed = Timed::default();
    let shared = shared(plan, threads, options);
    if !shared.is_empty() && kept.has_company()? {
        say(&format!(
            "another grid is at work in {}: the times of {} runs stay those beside others, until the \
             same command finds itself alone",
            options.runs.display(),
            shared.len()
        ));
    } else if !shared.is_empty() {
        say(&format!("timing {} runs again, one at a time", shared.len()));
        // On one GPU: whatever else runs on the machine, is beside it.
        let nsmc = kept.nsmc.on(gpus.get(..1).unwrap_or_default());
        timed = time(workspace, &nsmc, plan, &shared, &starting.stop);
    }
    Ok(Ended { outcome, timed })
}

/// Prints the tables of a grid that is at its end, and then, as an error, all that went wrong on the
/// way: one thing hides no other.
fn finish(
    workspace: &Workspace,
    plan: &Plan,
    options: &Options,
    seeds: Option<u64>,
    ended: &Ended,
) -> Result<()> {
    let Ended { outcome: Outcome { failures, .. }, timed } = ended;
    let presented = plan.sweep().and_then(|()| results::present(workspace, plan, options, seeds));
    let mut wrong: Vec<String> = presented.err().iter().map(|error| format!("{error:#}")).collect();
    if !failures.is_empty() {
        let (failed, runs) = (failures.len(), plan.jobs.len());
        wrong.push(format!("{failed} of {runs} runs failed\n{}", failures.join("\n")));
    }
    if !timed.failures.is_empty() {
        wrong.push(format!(
            "{} of {} runs could not be timed again; their times are those beside others, and the \
             same command tries it once more\n{}",
            timed.failures.len(),
            timed.runs,
            timed.failures.join("\n")
        ));
    }
    if timed.stopped {
        wrong.push(format!(
            "stopped: {} of {} times are measured; the same command goes on",
            timed.measured, timed.runs
        ));
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// The GPUs that the runs are spread over.
fn gpus(args: &Reproduce) -> Result<&[u16]> {
    ensure!(
        args.devices.is_empty() || args.launcher == Launcher::Local,
        "`--devices`: Slurm gives each run its GPU; ask it with `--slurm-option=--gres=gpu:1`"
    );
    args.options.device.gpus(&args.devices)
}

/// The threads of each of so many runs at once.
fn threads_of_each(jobs: usize) -> usize {
    // As rayon reads it: what is no number, or 0, is as if it were not there.
    let set = std::env::var("RAYON_NUM_THREADS").ok().and_then(|text| text.parse().ok());
    let cores = set.filter(|&threads| threads > 0);
    let cores: usize =
        cores.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    (cores / jobs).max(1)
}

#[cfg(all(test, unix))]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Args, Command};
    use crate::grid::tests::{World, stopped_when_waiting, without_waiting};

    /// A grid of two runs at once to its end, or until `stop`.
    fn reproduce(world: &World, plan: &mut Plan, stop: &Stop) -> Result<Ended> {
        let nsmc = Nsmc::at(world.path("nsmc"));
        let starting = Starting {
            workspace: &world.workspace,
            options: &world.options,
            nsmc: &nsmc,
            jobs: 2,
            gpus: &[],
            // As many as the records say.
            threads: Some(2),
            stop: stop.clone(),
            patience: PATIENCE,
        };
        let seconds = vec![Some(1.0); plan.jobs.len()];
        here(plan, &starting, &seconds, BTreeMap::new())
    }

    /// What is said last; the tables are there.
    fn said_last(world: &World, plan: &Plan, ended: &Ended) -> String {
        let finished = finish(&world.workspace, plan, &world.options, None, ended);
        let report = fs_err::read_to_string(world.path("runs/report-toy.html")).unwrap();
        assert!(report.contains("plain"), "the report has the runs' recipe");
        finished.err().map(|error| error.to_string()).unwrap_or_default()
    }

    fn ids(plan: &Plan) -> Vec<String> {
        plan.jobs.iter().map(|job| job.run.config.run_id()).collect()
    }

    /// The profile that falls back to the sample looks for its data, and fetches them.
    #[test]
    fn what_is_mistyped_is_told_before_anything_is_fetched() {
        let world = World::new();
        let toy = fs_err::read_to_string(world.path("configs/toy.toml")).unwrap();
        world.write("configs/mini.toml", toy.split("[trials]").next().unwrap());
        for task in [&["reproduce"][..], &["train", "--method", "vanilla", "--recipe", "plain"]] {
            let options = ["--profile", "mini", "--device", "cpu", "--mirror", "nowhere"];
            let set = ["--set", "trainin.weight_decay=0"];
            let refused =
                match Args::parse_from([&["xtask"], task, &options, &set].concat()).command {
                    Command::Reproduce(args) => run(&world.workspace, &args),
                    Command::Train(args) => crate::train::run(&world.workspace, &args),
                    _ => panic!("another task"),
                };
            let error = refused.unwrap_err().to_string();
            assert!(
                error.contains("--set trainin.weight_decay=0: `trainin`: unknown key"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_time_that_cannot_be_measured_hides_neither_tables_nor_runs_that_failed() {
        let world = World::new();
        let mut plan = without_waiting(&world);
        let ids = ids(&plan);
        fs_err::remove_file(world.path(&format!("records/{}.json", ids[1]))).unwrap();
        world.write(&format!("measures/{}", ids[0]), "fails");
        let ended = reproduce(&world, &mut plan, &Stop::default()).unwrap();
        // As an xtask that was killed leaves it.
        let started_with = plan.jobs[0].run.started_with();
        fs_err::write(&started_with, "").unwrap();
        let said = said_last(&world, &plan, &ended);
        let failed = said.find(&format!("1 of 6 runs failed\n{}: run ", ids[1]));
        let untimed = said.find("1 of 3 runs could not be timed again");
        assert!(failed < untimed && failed.is_some(), "{said}");
        assert!(said.ends_with(&format!("{}: out of memory", ids[0])), "{said}");
        assert!(!started_with.exists());
        // The other two were measured for all that; trials stand in no table.
        assert_eq!(world.lines("measured"), [&ids[0], &ids[4], &ids[5]].map(String::as_str));
        assert_eq!(ended.timed.measured, 2);

        fs_err::remove_dir_all(world.path("measures")).unwrap();
        let ended = reproduce(&world, &mut plan, &Stop::default()).unwrap();
        assert_eq!((ended.timed.runs, ended.timed.measured), (1, 1));
        let said = said_last(&world, &plan, &ended);
        assert!(said.starts_with("1 of 6 runs failed") && !said.contains("timed"), "{said}");
    }

    #[test]
    fn a_finished_run_without_its_predictions_is_an_error_and_the_tables_are_there() {
        let world = World::new();
        let mut plan = without_waiting(&world);
        let ended = reproduce(&world, &mut plan, &Stop::default()).unwrap();
        assert_eq!(said_last(&world, &plan, &ended), "");
        let run = plan.jobs[0].run.clone();
        let predictions = run.folder.join("predictions.tsv");
        let text = fs_err::read_to_string(&predictions).unwrap();
        assert!(!run.lacks_predictions());

        fs_err::remove_file(&predictions).unwrap();
        assert!(run.lacks_predictions() && run.is_done());
        let said = said_last(&world, &plan, &ended);
        let expected = format!(
            "1 of 6 runs cannot be read, and are in no table\n{}: no such file",
            predictions.display()
        );
        assert!(said.starts_with(&expected) && said.contains("`--again`"), "{said}");
        // Of one that is there, but not the run's.
        fs_err::write(&predictions, text.replacen("\t0\t0\t", "\t1\t0\t", 1)).unwrap();
        let said = said_last(&world, &plan, &ended);
        assert!(said.contains("not the predictions that record.json is of"), "{said}");

        // As the error says.
        fs_err::remove_dir_all(&run.folder).unwrap();
        let ended = reproduce(&world, &mut plan, &Stop::default()).unwrap();
        assert_eq!(said_last(&world, &plan, &ended), "");
        assert_eq!(fs_err::read_to_string(&predictions).unwrap(), text);
    }

    #[test]
    fn a_signal_while_times_are_measured_leaves_the_tables_and_says_how_many_there_are() {
        let world = World::new();
        let mut plan = without_waiting(&world);
        let ids = ids(&plan);
        world.write(&format!("measures/{}", ids[1]), "waits");
        let stop = Stop::default();
        let ended =
            stopped_when_waiting(&world, 1, &stop, || reproduce(&world, &mut plan, &stop)).unwrap();
        let said = said_last(&world, &plan, &ended);
        // In the order of the tables: the first cell with both seeds, then this one.
        assert_eq!(said, "stopped: 2 of 4 times are measured; the same command goes on");
        assert_eq!(world.lines("measured"), [&ids[0], &ids[4], &ids[1]].map(String::as_str));
        assert_eq!(world.lines("unstopped"), [""; 0], "the signal was passed on");
        fs_err::remove_dir_all(world.path("measures")).unwrap();
        let ended = reproduce(&world, &mut plan, &Stop::default()).unwrap();
        assert_eq!((ended.timed.runs, said_last(&world, &plan, &ended)), (2, String::new()));
    }

    #[test]
    fn a_program_that_is_built_midway_is_no_runs_of_this_grid() {
        let world = World::new();
        let mut plan = without_waiting(&world);
        // The first run that starts finds a build at its end.
        let broken = "#!/bin/sh\necho \"error: another build\" >&2\nexit 1\n";
        world.write_program("rebuilt", broken);
        let root = world.path("");
        let built =
            format!("cd '{}' && mv rebuilt nsmc 2>/dev/null; cd - >/dev/null\n", root.display());
        let program = world.program().replacen('\n', &format!("\n{built}"), 1);
        world.write_program("nsmc", &program);
        let ended = reproduce(&world, &mut plan, &Stop::default()).unwrap();
        assert_eq!(said_last(&world, &plan, &ended), "");
        assert_eq!(fs_err::read_to_string(world.path("nsmc")).unwrap(), broken);
        assert_eq!(world.lines("measured").len(), 4, "the times are that program's, too");
        assert!(!world.path("runs/.program").exists());
    }

    #[test]
    fn the_kept_program_goes_when_a_grid_is_stopped() {
        let world = World::new();
        world.write("wait", "");
        let mut plan = without_waiting(&world);
        let stop = Stop::default();
        let ended = stopped_when_waiting(&world, 2, &stop, || reproduce(&world, &mut plan, &stop));
        let said = ended.unwrap_err().to_string();
        assert_eq!(said, "stopped: 0 of 6 runs are done; the same command goes on");
        assert!(world.path("runs").is_dir() && !world.path("runs/.program").exists());
    }
}
