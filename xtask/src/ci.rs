use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::say;
use crate::workspace::Workspace;

/// The crates, each of which is tested alone.
const CRATES: [&str; 10] = [
    "nsmc-experiment",
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

    for (what, arguments) in steps {
        say(&format!("── {what}: cargo {}", arguments.join(" ")));
        let started = Instant::now();
        let status = Command::new("cargo")
            .current_dir(&workspace.root)
            .args(&arguments)
            .env("RUSTDOCFLAGS", "-D warnings")
            .status()
            .context("cargo")?;
        ensure!(status.success(), "{what} failed: cargo {}", arguments.join(" "));
        say(&format!("── {what}: done in {:.0} s", started.elapsed().as_secs_f64()));
    }
    Ok(())
}

/// Whether `cargo SUBCOMMAND` is there.
fn is_installed(subcommand: &str) -> bool {
    let asked = Command::new("cargo").args([subcommand, "--version"]).output();
    asked.is_ok_and(|output| output.status.success())
}
