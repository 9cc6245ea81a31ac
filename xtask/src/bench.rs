//! Training steps timed beside the Python peers, on the same batches, in turn.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use nsmc_eval::Table;
use nsmc_eval::statistics::median;
use nsmc_experiment::{MethodKind, Precision, write_durably};
use serde::{Deserialize, Serialize};

use crate::args::{Bench, Shape};
use crate::nsmc::Nsmc;
use crate::workspace::Workspace;
use crate::{print, say};

/// The methods that are timed, and the peers' names of them.
pub(crate) const METHODS: [(MethodKind, &str); 4] = [
    (MethodKind::Vanilla, "full"),
    (MethodKind::Lora, "lora"),
    (MethodKind::Adapter, "adapter"),
    (MethodKind::AdapterFusion, "adapterfusion"),
];

/// How the peers' batches are laid out, in words.
const PADDINGS: [(&str, &str); 3] = [
    ("batch", "padded to the batch's longest"),
    ("group", "grouped by length"),
    ("max", "padded to 128"),
];

/// What one process measured: the line it prints.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
struct Measured {
    method: String,
    padding: String,
    /// In words, where it says so.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    device: String,
    /// Real tokens; padding never counted.
    tokens_per_s: f64,
    /// Median.
    step_s: f64,
    peak_rss_mib: Option<f64>,
}

/// What `--out` receives.
#[derive(Serialize)]
struct Report<'a> {
    shape: &'a str,
    device: &'a str,
    precision: &'a str,
    steps: usize,
    warmup: usize,
    /// In the order they were run.
    ours: Vec<Measured>,
    peers: Vec<Measured>,
    comparisons: Vec<Comparison>,
}

/// One method beside one layout of the peers.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Comparison {
    method: MethodKind,
    padding: &'static str,
    /// Of tokens per second, ours to theirs, of each round.
    ratios: Vec<f64>,
    /// Of peak memory, ours to theirs; the median of the rounds.
    memory: Option<f64>,
}

pub(crate) fn run(workspace: &Workspace, args: &Bench) -> Result<()> {
    time(workspace, args, &Nsmc::build(workspace, args.device)?)
}

/// The same with a program that is built.
fn time(workspace: &Workspace, args: &Bench, nsmc: &Nsmc) -> Result<()> {
    let lengths = workspace.root.join("benches/nsmc-lengths.txt");
    let script = workspace.root.join("benches/peer.py");
    // Before hours are spent on what goes there.
    let out = args.out.as_ref().map(|path| workspace.folder(path));
    if let Some(folder) = out.as_ref().and_then(|path| path.parent()) {
        fs_err::create_dir_all(folder)?;
    }
    let mut report = Report {
        shape: args.shape.name(),
        device: nsmc.device(),
        precision: args.precision.name(),
        steps: args.steps,
        warmup: args.warmup,
        ours: Vec::new(),
        peers: Vec::new(),
        comparisons: Vec::new(),
    };
    let write = |report: &Report<'_>| match &out {
        Some(path) => report.write(path),
        None => Ok(()),
    };
    write(&report)?;
    let mut ended = Ok(());
    'methods: for (method, theirs) in METHODS {
        if !args.methods.is_empty() && !args.methods.contains(&method) {
            continue;
        }
        let mut rounds: Vec<(Measured, Vec<Measured>)> = Vec::new();
        for round in 1..=args.rounds {
            say(&format!("{method}, round {round} of {}", args.rounds));
            let measure = || -> Result<(Measured, Vec<Measured>)> {
                let mine = nsmc.output(workspace, &arguments(method, args, &lengths))?;
                let mine = parse(&mine, "nsmc bench train")?;
                let Some(python) = &args.peers else { return Ok((mine, Vec::new())) };
                let paddings = PADDINGS.iter().filter(|(name, _)| chosen(&args.paddings, name));
                let other = |(padding, _): &(&'static str, _)| {
                    peer(python, &script, [theirs, *padding, nsmc.device()], args, &lengths)
                };
                Ok((mine, paddings.map(other).collect::<Result<_>>()?))
            };
            match measure() {
                Ok(round) => rounds.push(round),
                Err(error) => {
                    ended = Err(error.context(format!("{method}, round {round}")));
                    break 'methods;
                }
            }
            let (mine, others) = &rounds[rounds.len() - 1];
            report.ours.push(mine.clone());
            report.peers.extend(others.iter().cloned());
            report.comparisons.retain(|comparison| comparison.method != method);
            report.comparisons.extend(compare(method, &rounds));
            write(&report)?;
        }
    }
    print(&our_table(&report.ours).for_stdout());
    if !report.comparisons.is_empty() {
        print(&comparison_table(&report.comparisons).for_stdout());
    }
    ended
}

impl Report<'_> {
    /// Done after each round: what was measured before something went wrong is not lost.
    fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).context("a report")?;
        Ok(write_durably(path, text + "\n")?)
    }
}

fn arguments(method: MethodKind, args: &Bench, lengths: &Path) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec!["bench".into(), "train".into()];
    arguments.extend([
        "--method".into(),
        method.name().into(),
        "--shape".into(),
        args.shape.name().into(),
    ]);
    arguments.extend(["--lengths".into(), lengths.into()]);
    arguments.extend(["--steps".into(), args.steps.to_string().into()]);
    arguments.extend(["--warmup".into(), args.warmup.to_string().into()]);
    arguments.extend(["--precision".into(), args.precision.name().into()]);
    arguments
}

fn peer(
    python: &Path,
    script: &Path,
    [method, padding, device]: [&str; 3],
    args: &Bench,
    lengths: &Path,
) -> Result<Measured> {
    let dtype = match args.precision {
        Precision::Float32 => "float32",
        Precision::Bf16 => "bfloat16",
    };
    let output = Command::new(python)
        .arg(script)
        .args(["--method", method, "--padding", padding, "--model", args.shape.name()])
        .args(["--device", device, "--dtype", dtype])
        .arg("--lengths")
        .arg(lengths)
        .args(["--steps", &args.steps.to_string(), "--warmup", &args.warmup.to_string()])
        .env("HF_HUB_OFFLINE", "1")
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("`--peers {}`", python.display()))?;
    let what = format!("{} {}", python.display(), script.display());
    ensure!(output.status.success(), "{what} ended with {}", output.status);
    parse(&String::from_utf8_lossy(&output.stdout), &what)
}

/// The last line is the measurement.
fn parse(output: &str, what: &str) -> Result<Measured> {
    let line = output.lines().rev().find(|line| line.starts_with('{'));
    let line =
        line.with_context(|| format!("{what}: expected a line of JSON, found `{output}`"))?;
    serde_json::from_str(line).with_context(|| format!("{what}: `{line}`"))
}

fn compare(method: MethodKind, rounds: &[(Measured, Vec<Measured>)]) -> Vec<Comparison> {
    let layouts = PADDINGS.iter().filter_map(|(padding, _)| {
        let pairs: Vec<(&Measured, &Measured)> = rounds
            .iter()
            .filter_map(|(mine, others)| {
                Some((mine, others.iter().find(|other| other.padding == *padding)?))
            })
            .collect();
        let memory: Vec<f64> = pairs
            .iter()
            .filter_map(|(mine, other)| Some(mine.peak_rss_mib? / other.peak_rss_mib?))
            .collect();
        (!pairs.is_empty()).then(|| Comparison {
            method,
            padding,
            ratios: pairs
                .iter()
                .map(|(mine, other)| mine.tokens_per_s / other.tokens_per_s)
                .collect(),
            memory: (!memory.is_empty()).then(|| median(&memory)),
        })
    });
    layouts.collect()
}

fn our_table(measured: &[Measured]) -> Table {
    let mut table =
        Table::new(["method", "tokens/s", "s/step", "step to\nvanilla's", "peak MiB"], 1);
    let of = |method: MethodKind, figure: fn(&Measured) -> f64| {
        let figures: Vec<f64> =
            measured.iter().filter(|one| one.method == method.name()).map(figure).collect();
        (!figures.is_empty()).then(|| median(&figures))
    };
    let vanilla = of(MethodKind::Vanilla, |one| one.step_s);
    for (method, _) in METHODS {
        let Some(step) = of(method, |one| one.step_s) else { continue };
        table.push([
            method.name().to_owned(),
            of(method, |one| one.tokens_per_s)
                .map_or_else(String::new, |rate| format!("{rate:.0}")),
            format!("{step:.3}"),
            vanilla.map_or_else(|| "–".into(), |vanilla| format!("{:.2}", step / vanilla)),
            of(method, |one| one.peak_rss_mib.unwrap_or(f64::NAN))
                .filter(|peak| peak.is_finite())
                .map_or_else(|| "–".into(), |peak| format!("{peak:.0}")),
        ]);
    }
    table
}

fn comparison_table(comparisons: &[Comparison]) -> Table {
    let mut table = Table::new(
        ["method", "against the peers'", "tokens/s, ratio", "least", "most", "memory, ratio"],
        2,
    );
    for comparison in comparisons {
        let words = PADDINGS.iter().find(|(padding, _)| *padding == comparison.padding);
        let least = comparison.ratios.iter().copied().fold(f64::INFINITY, f64::min);
        let most = comparison.ratios.iter().copied().fold(0.0, f64::max);
        table.push([
            comparison.method.name().to_owned(),
            words.map_or("", |(_, words)| words).to_owned(),
            format!("{:.2}", median(&comparison.ratios)),
            format!("{least:.2}"),
            format!("{most:.2}"),
            comparison.memory.map_or_else(|| "–".into(), |ratio| format!("{ratio:.2}")),
        ]);
    }
    table
}

/// Whether `name` is in a list that is empty for everything.
fn chosen(list: &[String], name: &str) -> bool {
    list.is_empty() || list.iter().any(|wanted| wanted == name)
}

impl Shape {
    fn name(self) -> &'static str {
        match self {
            Self::Mbert => "mbert",
            Self::Mini => "mini",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(padding: &str, tokens_per_s: f64, peak: f64) -> Measured {
        Measured {
            method: "lora".into(),
            padding: padding.into(),
            device: String::new(),
            tokens_per_s,
            step_s: 1.0,
            peak_rss_mib: Some(peak),
        }
    }

    #[test]
    fn ratios_are_of_the_same_round() {
        let rounds = [
            (measured("unpadded", 400.0, 10.0), vec![measured("batch", 100.0, 40.0)]),
            (measured("unpadded", 300.0, 12.0), vec![measured("batch", 150.0, 40.0)]),
            (measured("unpadded", 900.0, 10.0), vec![measured("batch", 300.0, 20.0)]),
        ];
        let found = compare(MethodKind::Lora, &rounds);
        assert_eq!(
            found,
            [Comparison {
                method: MethodKind::Lora,
                padding: "batch",
                ratios: vec![4.0, 2.0, 3.0],
                memory: Some(0.3)
            }]
        );
    }

    /// Of a method the first measurement; a second one keeps what is written by then, and fails.
    #[cfg(unix)]
    const PROGRAM: &str = r#"#!/bin/sh
[ -e "$0-$4" ] && { cp "$(dirname "$0")/out/$(basename "$0").json" "$0-kept"; exit 1; }
touch "$0-$4"
echo "{\"method\": \"$4\", \"padding\": \"device\", \"tokens_per_s\": 8.0, \"step_s\": 0.5, \"peak_rss_mib\": 3}"
"#;

    #[cfg(unix)]
    #[test]
    fn what_was_measured_before_a_failure_is_kept() {
        use crate::args::{Args, Command};
        use clap::Parser as _;

        let world = crate::grid::tests::World::new();
        let bench = |program: &str, arguments: &[&str]| {
            world.write_program(program, PROGRAM);
            let out = format!("out/{program}.json");
            let own = ["xtask", "bench", "--device", "cpu", "--out", &out];
            let args = Args::parse_from(own.iter().chain(arguments));
            let Command::Bench(args) = args.command else { panic!("it is a bench") };
            let ended = time(&world.workspace, &args, &Nsmc::at(world.path(program)));
            let report: serde_json::Value =
                serde_json::from_str(&fs_err::read_to_string(world.path(&out)).unwrap()).unwrap();
            (ended.map_err(|error| format!("{error:#}")), report)
        };
        let methods = |report: &serde_json::Value| -> Vec<String> {
            let ours = report["ours"].as_array().unwrap().iter();
            ours.map(|one| one["method"].as_str().unwrap().to_owned()).collect()
        };
        let (ended, whole) = bench("whole", &["--methods", "vanilla,lora", "--rounds", "1"]);
        assert_eq!((ended, methods(&whole)), (Ok(()), vec!["vanilla".into(), "lora".into()]));

        let (ended, report) = bench("again", &["--methods", "vanilla,lora", "--rounds", "2"]);
        let message = ended.unwrap_err();
        assert!(message.starts_with("vanilla, round 2: "), "{message}");
        assert_eq!(
            (methods(&report), &report["ours"][0]),
            (vec!["vanilla".into()], &whole["ours"][0])
        );
        assert_eq!((&report["shape"], &report["steps"]), (&"mbert".into(), &10.into()));
        // A kill would have left as much.
        let kept = fs_err::read_to_string(world.path("again-kept")).unwrap();
        assert_eq!(serde_json::from_str::<serde_json::Value>(&kept).unwrap(), report);

        // Peers that are not there: of that round nothing is kept, for there is nothing to compare.
        let arguments = ["--methods", "lora", "--rounds", "1", "--peers", "nowhere/python"];
        let (ended, report) = bench("alone", &arguments);
        assert!(ended.unwrap_err().contains("`--peers nowhere/python`"));
        assert_eq!(methods(&report), [""; 0]);
    }

    #[test]
    fn the_peers_line_is_read_among_warnings() {
        let output = "a warning\n{\"method\": \"full\", \"padding\": \"max\", \"tokens_per_s\": 1.5, \
                      \"step_s\": 2.0, \"peak_rss_mib\": 3, \"torch\": \"2.11\"}\n";
        let found = parse(output, "peer").unwrap();
        assert_eq!((found.tokens_per_s, found.peak_rss_mib), (1.5, Some(3.0)));
        assert!(parse("nothing", "peer").unwrap_err().to_string().contains("a line of JSON"));
    }
}
