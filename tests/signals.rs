//! Trainings that a signal stops, as Ctrl-C, `kill`, Slurm and `cargo xtask` do.

#[cfg(target_os = "linux")]
use std::io::Write;
use std::process::Command;
#[cfg(target_os = "linux")]
use std::process::Stdio;

use nsmc_experiment::{RunRecord, RunStatus};

use crate::methods::{ADAPTER, fusion};
use crate::power_loss::{found, train};
use crate::world::{Ran, Running, World, newest_step};

/// Starts the program and waits until there is a checkpoint of that step or a later one in a folder.
fn start(world: &World, arguments: &[&str], folder: &str, step: usize) -> Running {
    let mut process = world.start(arguments);
    let folder = world.path(folder);
    process.until("at its checkpoint", || newest_step(&folder) >= Some(step));
    process
}

fn send(process: &Running, signals: &[&str]) {
    for signal in signals {
        let kill = format!("kill -{signal} {}", process.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }
}

/// Stops a run of twenty epochs when `resume` has the first one's checkpoint; the same command then
/// ends as `whole` did.
fn stopped_and_gone_on(world: &World, signal: &str, resume: &str, whole: &str) {
    let process = start(world, &train("run"), resume, 12);
    send(&process, &[signal]);
    let Ran { code, stderr: said, .. } = process.end();
    assert_eq!(code, Some(1), "{signal}: {said}");
    let expected = "interrupted: a signal asked the training to stop; the same command goes on";
    assert!(said.contains(expected) && !said.contains("panicked"), "{signal}: {said}");
    let record = RunRecord::read(&world.path("run/record.json")).unwrap();
    assert!(matches!(&record.status, RunStatus::Failed { error } if error.contains(expected)));
    // Nothing but the end of an epoch and a signal makes one.
    let step = newest_step(&world.path(resume)).unwrap();
    assert!(step > 12, "{signal}: the last checkpoint is that of step {step}");

    let ran = world.nsmc(&train("run"));
    assert!(ran.success, "{}", ran.stderr);
    let epoch = step / 12 + 1;
    let mut places = vec![(epoch, format!("step {} of 12", step % 12 + 1))];
    if step.is_multiple_of(12) {
        places.push((epoch - 1, "after its last step".into()));
    }
    let said = &ran.stderr;
    let gone_on = |(epoch, place): &(usize, String)| {
        let line = format!("resumed: epoch {epoch}, {place}\n");
        let (_, then) = said.split_once(&line)?;
        let progress = then.lines().find(|line| line.contains(" reviews, ")).unwrap();
        Some(progress.contains(&format!(" {epoch}/20: ")))
    };
    assert_eq!(places.iter().find_map(gone_on), Some(true), "{signal}, {places:?}: {said}");
    assert_eq!(found(world, "run"), found(world, whole), "{signal}");
    assert!(world.nsmc(&["verify", "run"]).success);
    fs_err::remove_dir_all(world.path("run")).unwrap();
}

#[test]
fn a_run_that_a_signal_stops_leaves_a_checkpoint_and_ends_with_the_same_numbers() {
    let world = World::new();
    let config = world.config().replace("num_train_epochs = 6", "num_train_epochs = 20");
    assert!(world.train(&config, "whole").success);
    for signal in ["TERM", "INT", "HUP"] {
        stopped_and_gone_on(&world, signal, "run/resume", "whole");
    }

    // A second signal does not wait for the step and its checkpoint. Both are sent to a process that
    // stands still, so that the first one cannot end it before the second comes.
    let process = start(&world, &train("run"), "run/resume", 12);
    send(&process, &["STOP", "TERM", "INT", "CONT"]);
    let Ran { code, stderr: said, .. } = process.end();
    assert_eq!(code, Some(130), "{said}");
    let ran = world.nsmc(&train("run"));
    assert!(ran.success && ran.stderr.contains("resumed: "), "{}", ran.stderr);
    assert_eq!(found(&world, "run"), found(&world, "whole"));
}

/// Starts a training that says what it does in a file, and waits until it says something.
fn start_until(world: &World, what: &str) -> Running {
    let mut command = world.program("sh");
    command.args(["-c", "exec \"$0\" \"$@\" 2> said", env!("CARGO_BIN_EXE_nsmc")]);
    command.args(train("run"));
    let mut process = Running::start(command);
    let said = world.path("said");
    process.until(what, || fs_err::read_to_string(&said).is_ok_and(|said| said.contains(what)));
    process
}

#[test]
fn a_run_that_a_signal_stops_in_its_validation_or_its_test_ends_with_the_same_numbers() {
    let world = World::new();
    // So many reviews, one at a time, that a signal comes before the last.
    for file in ["train.txt", "test.txt"] {
        let text = world.read(file);
        let (header, rows) = text.split_once('\n').unwrap();
        let copies = (0..4000 / rows.lines().count())
            .flat_map(|copy| rows.lines().map(move |row| format!("{copy}-{row}\n")));
        let copied: String = std::iter::once(format!("{header}\n")).chain(copies).collect();
        world.write(file, copied);
    }
    let config = world
        .config()
        .replace("train_size = 200", "train_size = 1600")
        .replace("validation_fraction = 0.1", "validation_fraction = 0.5")
        .replace("num_train_epochs = 6", "num_train_epochs = 2")
        .replace("eval_batch_size = 16", "eval_batch_size = 1");
    assert!(world.train(&config, "whole").success);

    let process = start_until(&world, "validation 1/2: ");
    send(&process, &["TERM"]);
    let code = process.end().code;
    let said = world.read("said");
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("the same command goes on") && !said.contains("panicked"), "{said}");
    assert_eq!(newest_step(&world.path("run/resume")), Some(50), "{said}");
    assert!(!world.path("run/metrics.jsonl").exists(), "it was validated: {said}");

    let process = start_until(&world, "test: ");
    send(&process, &["INT"]);
    let code = process.end().code;
    let said = world.read("said");
    assert_eq!(code, Some(130), "{said}");
    assert!(said.contains("resumed: epoch 1, after its last step\n"), "{said}");
    assert!(said.contains("the same command goes on") && !said.contains("panicked"), "{said}");

    let ran = world.nsmc(&train("run"));
    assert!(ran.success, "{}", ran.stderr);
    assert_eq!(found(&world, "run"), found(&world, "whole"));
    assert!(world.nsmc(&["verify", "run"]).success);
}

/// Starts a training under burn's dashboard, on a terminal of its own. The process writes its number to a
/// file.
#[cfg(target_os = "linux")]
fn start_under_the_dashboard(world: &World) -> Running {
    let nsmc = env!("CARGO_BIN_EXE_nsmc");
    let train = train("run").join(" ");
    let command = format!("stty rows 40 cols 120; echo $$ > pid; exec '{nsmc}' {train} --tui");
    let mut script = world.program("script");
    script.args(["--quiet", "--return", "--flush", "--command", &command, "/dev/null"]);
    script.env("TERM", "xterm").env("SHELL", "/bin/sh").stdin(Stdio::piped());
    let mut process = Running::start(script);
    let resume = world.path("run/resume");
    process.until("at its checkpoint", || newest_step(&resume) >= Some(12));
    process
}

#[cfg(target_os = "linux")]
#[test]
fn a_run_that_is_stopped_under_the_dashboard_is_not_done() {
    let world = World::new();
    // In some systems it is a package of its own.
    if world.program("script").arg("--version").output().is_err() {
        // Not `println!`, whose words cargo keeps to itself when a test passes.
        let said = b"NOT CHECKED under the dashboard: no `script` here, which makes a terminal.\n";
        std::io::stderr().write_all(said).unwrap();
        return;
    }
    let config = world.config().replace("num_train_epochs = 6", "num_train_epochs = 20");
    assert!(world.train(&config, "whole").success);
    for by_key in [false, true] {
        let mut process = start_under_the_dashboard(&world);
        let asked = if by_key {
            process.types("qs");
            "the dashboard"
        } else {
            let kill = format!("kill -TERM {}", world.read("pid"));
            assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
            "a signal"
        };
        let Ran { code, stdout, .. } = process.end();
        assert_eq!(code, Some(1), "{asked}: {stdout}");
        let record = RunRecord::read(&world.path("run/record.json")).unwrap();
        let expected = format!("interrupted: {asked} asked the training to stop; the same command");
        assert!(
            matches!(&record.status, RunStatus::Failed { error } if error.contains(&expected)),
            "{:?}",
            record.status
        );
        for command in [
            &["predict", "--run", "run", "--text", "x"][..],
            &["compare", "run", "whole"],
            &["verify", "run"],
        ] {
            let ran = world.nsmc(command);
            let said = ran.stdout + &ran.stderr;
            assert!(!ran.success && said.contains(&expected), "{command:?}: {said}");
        }
        let ran = world.nsmc(&train("run"));
        assert!(ran.success && ran.stderr.contains("resumed: "), "{}", ran.stderr);
        assert_eq!(found(&world, "run"), found(&world, "whole"));
        fs_err::remove_dir_all(world.path("run")).unwrap();
    }
}

#[test]
fn an_adapter_fusion_that_a_signal_stops_in_either_stage_ends_with_the_same_numbers() {
    let world = World::new();
    assert!(world.train(&world.config_with(ADAPTER), "ko").success);
    let export = world.nsmc(&["export", "--run", "ko", "--format", "adapterhub", "--out", "hub"]);
    assert!(export.success, "{}", export.stderr);
    let config = world
        .config_with(&fusion(&world, "hub/nsmc"))
        .replace("num_train_epochs = 6", "num_train_epochs = 20")
        .replace("num_train_epochs = 2\n", "num_train_epochs = 20\n");
    assert!(world.train(&config, "whole").success);
    for signal in ["TERM", "INT"] {
        stopped_and_gone_on(&world, signal, "run/adapter/resume", "whole");
        stopped_and_gone_on(&world, signal, "run/resume", "whole");
    }
}

#[test]
fn a_pre_training_that_a_signal_stops_leaves_a_checkpoint_and_ends_with_the_same_model() {
    let world = World::new();
    crate::pretrain::prepare(&world);
    let config = world
        .read("pretraining.toml")
        .replace("num_train_steps = 60", "num_train_steps = 200")
        .replace("save_every = 3", "save_every = 20");
    world.write("pretraining.toml", config);
    let pretrain = |run: &'static str| {
        ["pretrain", "--config", "pretraining.toml", "--out", run, "--device", "cpu"]
    };
    let whole = world.nsmc(&pretrain("whole"));
    assert!(whole.success, "{}", whole.stderr);
    for signal in ["TERM", "INT"] {
        let process = start(&world, &pretrain("run"), "run/checkpoint", 20);
        send(&process, &[signal]);
        let Ran { code, stderr: said, .. } = process.end();
        assert_eq!(code, Some(1), "{signal}: {said}");
        let step = newest_step(&world.path("run/checkpoint")).unwrap();
        let expected =
            format!("interrupted: after step {step}; the same command goes on from there");
        assert!(step > 20 && said.contains(&expected), "{signal}: step {step}: {said}");

        let ran = world.nsmc(&pretrain("run"));
        assert!(ran.success, "{}", ran.stderr);
        let gone_on = format!("resumed after step {step}");
        assert!(ran.stderr.contains(&gone_on), "not {gone_on}: {}", ran.stderr);
        crate::pretrain::assert_same(&world, "run", "whole");
        fs_err::remove_dir_all(world.path("run")).unwrap();
    }
}
