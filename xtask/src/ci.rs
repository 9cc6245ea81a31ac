use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::grid::Stop;
use crate::say;
use crate::workspace::Workspace;

/// A test that waits for what never comes would hold CI for ever. The longest step builds
/// burn; on two slow cores that trained something besides, it took 36 minutes.
const LIMIT: Duration = Duration::from_hours(1);

/// The crates, each of which is tested alone.
pub(crate) const CRATES: [&str; 11] = [
    "nsmc-experiment",
    "nsmc-baselines",
    "nsmc-eval",
    "nsmc-report",
    "nsmc-data",
    "nsmc-ops",
    "nsmc-bert",
    "nsmc-peft",
    "nsmc-training",
    "nsmc-cli",
    "xtask",
];

pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let mut steps: Vec<(String, Vec<&str>)> = vec![
        ("formatting".into(), vec!["fmt", "--all", "--check"]),
        ("lints".into(), vec!["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]),
        ("docs".into(), vec!["doc", "--workspace", "--no-deps"]),
        // All at once, so that no core waits for burn's largest crate. `nsmc-features` is why no test
        // below builds any of it again.
        ("build".into(), vec!["test", "--workspace", "--no-run"]),
    ];
    for name in CRATES {
        // The end-to-end tests belong to the program's crate and come last.
        let mut arguments = vec!["test", "--package", name];
        if name == "nsmc-cli" {
            arguments.extend(["--bins"]);
        }
        steps.push((name.into(), arguments));
    }
    steps.push(("end to end".into(), vec!["test", "--package", "nsmc-cli", "--test", "e2e"]));

    steps.push(("tables in results/".into(), vec!["xtask", "tables", "--check"]));

    // Advisories are left out: they change without the code, and need the network.
    let supply_chain = vec!["deny", "check", "licenses", "bans", "sources"];
    if is_installed("deny") {
        steps.push(("supply chain".into(), supply_chain));
    } else {
        say(&format!(
            "── left out, as cargo-deny is not installed: cargo {}",
            supply_chain.join(" ")
        ));
    }

    let stop = Stop::on_signal()?;
    for (what, arguments) in steps {
        say(&format!("── {what}: cargo {}", arguments.join(" ")));
        let started = Instant::now();
        let mut command = Command::new("cargo");
        command.current_dir(&workspace.root).args(&arguments).env("RUSTDOCFLAGS", "-D warnings");
        step(command, LIMIT, &stop)
            .with_context(|| format!("{what} failed: cargo {}", arguments.join(" ")))?;
        say(&format!("── {what}: done in {:.0} s", started.elapsed().as_secs_f64()));
    }
    Ok(())
}

/// Runs a step in a process group of its own. When it takes longer than `limit`, or a signal asks
/// this program to stop, all of the group is killed.
fn step(mut command: Command, limit: Duration, stop: &Stop) -> Result<()> {
    // One that reads from the terminal would be stopped, as it is not in the terminal's group.
    command.stdin(Stdio::null());
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let program = command.get_program().display().to_string();
    let mut process = command.spawn().context(program)?;
    let started = Instant::now();
    loop {
        if let Some(status) = process.try_wait()? {
            ensure!(status.success(), "{status}");
            return Ok(());
        }
        if started.elapsed() >= limit {
            kill_group(&mut process)?;
            bail!("not done after {} s, the limit of a step, and so killed", limit.as_secs());
        }
        if stop.asked() > 0 {
            kill_group(&mut process)?;
            bail!("stopped by a signal");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Kills a process that leads a group, and all others of the group.
fn kill_group(process: &mut Child) -> Result<()> {
    #[cfg(unix)]
    {
        use nix::sys::signal::{Signal, killpg};
        use nix::unistd::Pid;
        // It was not waited for, so that the number is still its own.
        killpg(Pid::from_raw(process.id().cast_signed()), Signal::SIGKILL)?;
    }
    #[cfg(not(unix))]
    process.kill()?;
    process.wait()?;
    Ok(())
}

/// Whether `cargo SUBCOMMAND` is there.
fn is_installed(subcommand: &str) -> bool {
    let asked = Command::new("cargo").args([subcommand, "--version"]).output();
    asked.is_ok_and(|output| output.status.success())
}

#[cfg(all(test, unix))]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn a_step_that_does_not_end_is_killed_with_all_that_it_started() {
        for limit in [Duration::from_millis(500), LIMIT] {
            let (mut reader, writer) = std::io::pipe().unwrap();
            let mut command = Command::new("sh");
            command.args(["-c", "sleep 600 & sleep 600"]).stdout(writer);
            let stop = Stop::default();
            if limit == LIMIT {
                stop.ask();
            }
            let error = step(command, limit, &stop).unwrap_err().to_string();
            let expected =
                if limit == LIMIT { "stopped by a signal" } else { "not done after 0 s" };
            assert!(error.contains(expected), "{error}");
            // The pipe has an end as soon as nobody is left who could write.
            let started = Instant::now();
            reader.read_to_end(&mut Vec::new()).unwrap();
            assert!(started.elapsed() < Duration::from_mins(5));
        }
    }

    #[test]
    fn a_step_fails_with_its_program() {
        let shell = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            step(command, LIMIT, &Stop::default())
        };
        shell("exit 0").unwrap();
        assert!(shell("exit 3").unwrap_err().to_string().contains('3'));
    }
}
