//! Runs whose disk is full, or whose directory goes away.

use std::io::Write;

use crate::world::{Ran, Running, World, newest_step};

/// Runs a script as the root of a namespace of mounts of its own, in which `disk` is a file system of
/// `kib` KiB.
fn on_a_disk_of(world: &World, kib: usize, script: &str) -> Ran {
    fs_err::create_dir_all(world.path("disk")).unwrap();
    let script = format!("mount -t tmpfs -o size={kib}k tmpfs disk && {{ {script}; }}");
    let mut command = world.program("unshare");
    command.args(["-rm", "sh", "-c", &script]).env("NSMC", env!("CARGO_BIN_EXE_nsmc"));
    Running::start(command).end()
}

/// Whether this machine allows such a namespace and such a mount in it.
fn has_disks(world: &World) -> bool {
    let known = world.program("unshare").arg("--version").output();
    known.is_ok_and(|output| output.status.success()) && on_a_disk_of(world, 4, "true").success
}

/// Trains on such a disk; what lies there in the end is copied to `kept`.
fn train_on_a_disk_of(world: &World, kib: usize) -> Ran {
    // A process that is killed leaves its children behind: the script ends before anyone loses
    // patience with it.
    let script = "timeout -s KILL 240 \"$NSMC\" train --config config.toml --out disk/run \
                  --device cpu; status=$?; rm -rf kept; cp -r disk kept; exit $status";
    on_a_disk_of(world, kib, script)
}

#[test]
fn a_full_disk_is_a_clear_error_and_costs_no_checkpoint() {
    let world = World::new();
    if !has_disks(&world) {
        // Not `println!`, whose words cargo keeps to itself when a test passes.
        let said = b"NOT CHECKED on a full disk: no tmpfs in a namespace of mounts here.\n";
        std::io::stderr().write_all(said).unwrap();
        return;
    }
    let config = world.config().replace("save_steps = 0", "save_steps = 5");
    let whole = world.train(&config, "whole");
    assert!(whole.success, "{}", whole.stderr);
    let predictions = world.read("whole/predictions.tsv");

    let (mut full, mut gone_on) = (0, 0);
    // From a disk that holds not even the configuration to one that holds all but the last files.
    for kib in [4, 40, 100, 160, 200, 240, 280, 320, 360, 400, 440, 480, 520, 560, 600] {
        let ran = train_on_a_disk_of(&world, kib);
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
    let mut process = world.start(&arguments);
    // Of its checkpoints the last two are there: the third itself may be gone between two looks.
    let resume = world.path("run/resume");
    process.until("its third step", || newest_step(&resume) >= Some(3));
    fs_err::rename(world.path("run"), world.path("moved")).unwrap();
    // It has ten thousand epochs to go, but nowhere to keep them.
    let ran = process.end();
    assert!(!ran.success && !ran.stderr.contains("panicked"), "{}", ran.stderr);
    assert!(ran.stderr.contains("error: ") && ran.stderr.contains("run"), "{}", ran.stderr);
    assert!(!world.path("run/checkpoint").exists() && !world.path("run/resume").exists());
}
