//! Submissions to scripts that stand in for Slurm's commands. `xtask/tests/slurm.rs` has the real one.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::PathBuf;

use super::queue::Slurm;
use super::submission::Submission;
use super::{Submitting, folder, refused, standing, submit, task};
use crate::args::SlurmTask;
use crate::grid::tests::World;
use crate::grid::{Plan, State};
use crate::nsmc::Nsmc;

/// `sbatch --parsable OPTIONS SCRIPT`: gives the numbers 100, 200, ...
const SBATCH: &str = r#"#!/bin/sh
folder=$(dirname "$0")
printf '%s|' "$@" >> "$folder/words"
echo >> "$folder/submitted"
echo "$(wc -l < "$folder/submitted")00;cluster"
"#;
const SQUEUE: &str = "#!/bin/sh\ncat \"$(dirname \"$0\")/queue\"\n";
/// `scontrol show config`
const SCONTROL: &str = r#"#!/bin/sh
[ "$*" = "show config" ] || exit 1
cat "$(dirname "$0")/config"
"#;

fn world() -> World {
    let world = World::new();
    for (name, text) in [("sbatch", SBATCH), ("squeue", SQUEUE), ("scontrol", SCONTROL)] {
        world.write_program(name, text);
    }
    world.write("queue", "");
    world.write("config", "MaxArraySize            = 1001\n");
    world
}

fn submitted(world: &World, plan: &Plan, left_out: &[usize]) -> (PathBuf, Submission) {
    let options = ["--partition=gpu", "--time=1-0", "-C 'fast big'"].map(str::to_owned);
    let submitting = Submitting {
        workspace: &world.workspace,
        options: &world.options,
        sbatch: &options,
        at_once: Some(3),
    };
    let folder = folder(&world.path("runs"), plan);
    fs_err::create_dir_all(&folder).unwrap();
    let (slurm, nsmc) = (Slurm::at(&world.path("")), Nsmc::at(world.path("nsmc")));
    submit(plan, &submitting, &slurm, &nsmc, &folder, left_out).unwrap();
    let submission = Submission::read(&folder).unwrap().unwrap();
    (folder, submission)
}

/// The states of the tasks that `squeue` speaks of, and how all stand.
fn stands(world: &World, plan: &Plan, queue: &str) -> Vec<String> {
    world.write("queue", queue);
    let runs = world.path("runs");
    let submission = Submission::read(&folder(&runs, plan)).unwrap().unwrap();
    let queue = Slurm::at(&world.path("")).queue().unwrap();
    let table = standing(plan, &submission, &queue, &runs).unwrap().markdown();
    let rows = table.lines().skip(2).map(|row| row.split('|').nth(3).unwrap_or_default().trim());
    rows.map(str::to_owned).collect()
}

#[test]
fn what_waits_is_an_array_that_depends_on_its_trials_tasks() {
    let world = world();
    let plan = world.plan();
    let (folder, submission) = submitted(&world, &plan, &[]);
    let first = fs_err::read_to_string(folder.join("array-0.sbatch")).unwrap();
    let second = fs_err::read_to_string(folder.join("array-1.sbatch")).unwrap();
    // Four plain runs and two trials, then the four that wait.
    assert!(first.contains("#SBATCH --array=0-5%3\n") && !first.contains("--dependency"));
    assert!(second.contains("#SBATCH --array=0-3%3\n"), "{second}");
    // The plan's third and fourth run are the trials, of its first array the same.
    assert!(second.contains("#SBATCH --dependency=afterok:100_2:100_3\n"), "{second}");
    for script in [&first, &second] {
        let place = |text: &str| script.find(text).unwrap_or_else(|| panic!("{text}: {script}"));
        assert!(
            place("#SBATCH --signal=") < place("#SBATCH --partition=gpu\n#SBATCH --time=1-0\n")
        );
        assert!(place("--time=1-0") < place("\nexec "), "options stand before commands");
    }
    // What stands in the script alone, a variable such as SBATCH_PARTITION would override.
    let words = fs_err::read_to_string(world.path("words")).unwrap();
    let given = "|--partition=gpu|--time=1-0|-C|fast big|";
    let own =
        ["--parsable|--job-name=nsmc-toy|--array=0-5%3|", "|--dependency=afterok:100_2:100_3|"];
    assert!(
        words.matches(given).count() == 2 && own.iter().all(|own| words.contains(own)),
        "{words}"
    );
    assert_eq!(submission.jobs(), ["100", "200"]);
    let states = stands(&world, &plan, "100|0|RUNNING|None\n200|3|PENDING|Dependency\n");
    assert_eq!((states[0].as_str(), states[9].as_str()), ("running", "waits for its trials"));
    assert_eq!(states[1], "not started");
    fs_err::write(folder.join("log/100_1.txt"), "").unwrap();
    let stopped = &stands(&world, &plan, "")[1];
    assert!(
        stopped.starts_with("not done; see ") && stopped.ends_with("log/100_1.txt"),
        "{stopped}"
    );
}

#[test]
fn what_is_too_much_for_one_array_is_several_and_each_dependency_names_its_trials_own() {
    let world = world();
    let plan = world.plan();
    world.write("config", "MaxArraySize            = 3\n");
    let (folder, submission) = submitted(&world, &plan, &[]);
    assert_eq!(submission.jobs(), ["100", "200", "300", "400"]);
    let script = |array: usize| {
        fs_err::read_to_string(folder.join(format!("array-{array}.sbatch"))).unwrap()
    };
    // Three at once are one and two. The second trial is the first task of the second array.
    for (array, tasks, dependency) in [
        (0, "0-2%1", None),
        (1, "0-2%2", None),
        (2, "0-1%1", Some("afterok:100_2:200_0")),
        (3, "0-1%2", Some("afterok:100_2:200_0")),
    ] {
        let script = script(array);
        assert!(script.contains(&format!("#SBATCH --array={tasks}\n")), "{array}: {script}");
        let found = script.lines().find_map(|line| line.strip_prefix("#SBATCH --dependency="));
        assert_eq!(found, dependency, "{array}");
    }
    let ids: Vec<&str> = submission.tasks().map(|(.., task)| task.id.as_str()).collect();
    let expected = [0, 1, 2, 3, 6, 7, 4, 5, 8, 9].map(|job| plan.jobs[job].shown_id());
    assert_eq!(ids, expected);

    let run = |job: u64, task: usize| {
        let args = SlurmTask { folder: folder.clone(), job, task };
        let command = task::command(&world.workspace, &args).unwrap().unwrap();
        let file = PathBuf::from(command.get_args().nth(2).unwrap());
        nsmc_experiment::ExperimentConfig::read(&file).unwrap().run_id()
    };
    assert_eq!(run(200, 0), plan.jobs[3].run.config.run_id());
    for (trial, accuracy) in [(2, 0.6), (3, 0.7)] {
        world.leaves_with(&plan.jobs[trial].run.config, [0.5, accuracy]);
    }
    let settled = world.plan();
    assert_eq!(run(400, 1), settled.jobs[9].run.config.run_id());
    let states = stands(&world, &plan, "100|1|RUNNING|None\n400|1|PENDING|Dependency\n");
    assert_eq!((states[1].as_str(), states[9].as_str()), ("running", "waits for its trials"));
    assert_eq!((states[3].as_str(), states[8].as_str()), ("done", "not started"));
}

#[test]
fn a_cluster_that_does_not_say_how_large_an_array_may_be_has_slurms_own_limit() {
    let world = world();
    world.write_program("scontrol", "#!/bin/sh\necho \"access denied\" >&2\nexit 1\n");
    let (_, submission) = submitted(&world, &world.plan(), &[]);
    assert_eq!(submission.jobs(), ["100", "200"]);
}

#[test]
fn a_run_that_cannot_be_fetched_is_left_out_with_what_waits_for_it() {
    let world = world();
    let plan = world.plan();
    let (folder, submission) = submitted(&world, &plan, &[3]);
    assert_eq!(submission.tasks().count(), 5, "without a trial and the four that wait for it");
    assert!(!folder.join("array-1.sbatch").exists());
}

#[test]
fn a_task_becomes_the_process_of_its_run_and_takes_what_its_trials_chose() {
    let world = world();
    let plan = world.plan();
    let (folder, submission) = submitted(&world, &plan, &[]);
    let task = |array: u64, task| {
        let args = SlurmTask { folder: folder.clone(), job: (array + 1) * 100, task };
        task::command(&world.workspace, &args)
    };
    let message = task(1, 0).unwrap_err().to_string();
    assert!(message.contains("vanilla-100-s1-…: its trials are not done"), "{message}");
    for (trial, accuracy) in [(2, 0.6), (3, 0.7)] {
        world.succeeds(&plan.jobs[trial].run.config, [0.5, accuracy]);
        assert!(task(0, trial).unwrap().unwrap().status().unwrap().success());
    }
    assert!(task(0, 2).unwrap().is_none(), "a run that is done is not run again");
    let mut command = task(1, 0).unwrap().unwrap();
    assert!(!command.status().unwrap().success(), "no record was put ready for it");
    let now = world.plan();
    assert_eq!(now.jobs[4].state(), State::Stopped);
    assert_eq!(world.lines("started").last(), Some(&now.jobs[4].run.config.run_id()));
    // The second trial's rate.
    assert!((now.jobs[4].run.config.training.learning_rate - 4e-3).abs() < 1e-12);

    let states = stands(&world, &now, "");
    assert_eq!((states[2].as_str(), states[3].as_str()), ("done", "done"));
    assert_eq!(submission.tasks().count(), 10);
    assert!(task(2, 0).is_err() && task(1, 4).is_err(), "places that were not submitted");
}

#[test]
fn an_edit_after_the_submission_changes_nothing_of_what_is_queued() {
    let world = world();
    let plan = world.plan();
    let (folder, submission) = submitted(&world, &plan, &[]);
    let id = |array: u64, task| {
        let args = SlurmTask { folder: folder.clone(), job: (array + 1) * 100, task };
        let command = task::command(&world.workspace, &args).unwrap().unwrap();
        let file = command.get_args().nth(2).unwrap().to_owned();
        nsmc_experiment::ExperimentConfig::read(std::path::Path::new(&file)).unwrap().run_id()
    };
    for (trial, accuracy) in [(2, 0.7), (3, 0.6)] {
        world.leaves_with(&plan.jobs[trial].run.config, [0.5, accuracy]);
    }
    let settled = world.plan();
    let expected = [4, 5, 8, 9].map(|job| settled.jobs[job].run.config.run_id());
    let plain = plan.jobs[1].run.config.run_id();

    // Other cells in another order, with other candidates; then a profile and a method that are none.
    let profile = fs_err::read_to_string(world.path("configs/toy.toml")).unwrap();
    let (first, second) = ("    { method = \"vanilla\" },\n", "seeds = [1, 2]");
    assert!(profile.contains(first) && profile.contains(second));
    let edited = profile.replace(first, "").replace(second, "seeds = [2]").replace("4e-3", "9e-3");
    for (profile, method) in
        [(edited.as_str(), "[method]\nname = \"vanilla\"\n"), ("[grid", "name")]
    {
        world.write("configs/toy.toml", profile);
        world.write("configs/methods/vanilla.toml", method);
        world.write("datasets/manifest.toml", method);
        assert_eq!([0, 1, 2, 3].map(|task| id(1, task)), expected);
        assert_eq!(id(0, 1), plain);
    }
    assert_eq!(stands(&world, &plan, "").iter().filter(|state| *state == "done").count(), 2);
    let ids: Vec<String> = submission.tasks().map(|(.., task)| task.id.clone()).collect();
    assert_eq!(ids[1], plain);
}

#[test]
fn what_would_break_the_grid_is_refused_of_sbatchs_options() {
    for option in [
        "-Mother",
        "--clusters=other",
        "--cluster other",
        "--array=0-3",
        "-a 0-3",
        "--dependency=afterok:4711",
        "-d singleton",
    ] {
        assert!(refused(option).is_some(), "{option}");
    }
    for option in ["--cluster-constraint=fast", "--mem=24G", "-p gpu", "-A me", "-D /tmp"] {
        assert!(refused(option).is_none(), "{option}");
    }
}
