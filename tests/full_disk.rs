//! Runs whose disk is full, or whose directory goes away.

use std::process::Command;

use nsmc_experiment::FileLock;

use crate::world::{Ran, World};

/// Trains into a file system of `kib` KiB, in a namespace of mounts of its own; what lies there in
/// the end is copied to `kept`. None where this machine allows no such namespace.
fn train_on_a_disk_of(world: &World, kib: usize, before: &str) -> Option<Ran> {
    let allowed = Command::new("unshare").args(["-rm", "true"]).status();
    if !allowed.is_ok_and(|status| status.success()) {
        return None;
    }
    fs_err::create_dir_all(world.path("disk")).unwrap();
    let script = format!(
        "mount -t tmpfs -o size={kib}k tmpfs disk && {{ {before}; }} && \
         \"$NSMC\" train --config config.toml --out disk/run --device cpu; status=$?; \
         rm -rf kept; cp -r disk kept; exit $status"
    );
    let output = Command::new("unshare")
        .args(["-rm", "sh", "-c", &script])
        .current_dir(world.path(""))
        .env("NSMC", env!("CARGO_BIN_EXE_nsmc"))
        .env("NSMC_CACHE", world.path("cache"))
        .output()
        .unwrap();
    Some(Ran::from(output))
}

#[test]
fn a_full_disk_is_a_clear_error_and_costs_no_checkpoint() {
    let world = World::new();
    let config = world.config().replace("save_steps = 0", "save_steps = 5");
    let whole = world.train(&config, "whole");
    assert!(whole.success, "{}", whole.stderr);
    let predictions = world.read("whole/predictions.tsv");

    let (mut full, mut gone_on) = (0, 0);
    // From a disk that holds not even the configuration to one that holds all but the last files.
    for kib in [4, 40, 100, 160, 200, 240, 280, 320, 360, 400, 440, 480, 520, 560, 600] {
        let Some(ran) = train_on_a_disk_of(&world, kib, "true") else {
            eprintln!("skipped: this machine allows no namespace of mounts");
            return;
        };
        if ran.success {
            continue;
        }
        full += 1;
        let said = &ran.stderr;
        assert!(said.contains("No space left on device") && said.contains("error: "), "{said}");
        assert!(!said.contains("panicked"), "{kib} KiB: {said}");
        assert!(!world.path("kept/run/predictions.tsv").exists() || !said.contains("epoch"));
        assert!(!world.path("kept/run/SHA256SUMS").exists());
        // With space, the same run goes on and ends as one that was never stopped.
        if world.path("kept/run/config.toml").exists() {
            let ran = world.nsmc(&[
                "train",
                "--config",
                "config.toml",
                "--out",
                "kept/run",
                "--device",
                "cpu",
            ]);
            assert!(ran.success, "{kib} KiB: {}", ran.stderr);
            gone_on += usize::from(ran.stderr.contains("resumed: "));
            assert_eq!(world.read("kept/run/predictions.tsv"), predictions, "{kib} KiB");
            assert!(world.nsmc(&["verify", "kept/run"]).success);
        }
    }
    assert!(full >= 5 && gone_on >= 2, "{full} full disks, {gone_on} runs that went on");
}

#[test]
fn a_directory_that_goes_away_is_a_clear_error() {
    let world = World::new();
    let config = world.config().replace("save_steps = 0", "save_steps = 1");
    world.write("config.toml", config.replace("num_train_epochs = 6", "num_train_epochs = 9999"));
    let arguments = ["train", "--config", "config.toml", "--out", "run", "--device", "cpu"];
    let mut command = world.command(&arguments);
    let process = command.stderr(std::process::Stdio::piped()).stdout(std::process::Stdio::null());
    let mut process = process.spawn().unwrap();
    while FileLock::holder(&world.path("run/.lock")) != Some(process.id())
        || !world.path("run/resume/step-3").exists()
    {
        assert!(process.try_wait().unwrap().is_none(), "it ended before its third step");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    fs_err::rename(world.path("run"), world.path("moved")).unwrap();
    // It has ten thousand epochs to go, but nowhere to keep them.
    let ran = Ran::from(process.wait_with_output().unwrap());
    assert!(!ran.success && !ran.stderr.contains("panicked"), "{}", ran.stderr);
    assert!(ran.stderr.contains("error: ") && ran.stderr.contains("run"), "{}", ran.stderr);
    assert!(!world.path("run/checkpoint").exists() && !world.path("run/resume").exists());
}
