use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Output, Stdio};
use std::sync::LazyLock;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::args::DeviceChoice;
use crate::grid::{Stop, pass_on};
use crate::say;
use crate::workspace::Workspace;

/// The program that runs are processes of, built for a device.
pub(crate) struct Nsmc {
    path: PathBuf,
    device: &'static str,
    /// The GPUs' indices, which share a run's batches; the first if there is none.
    gpus: Vec<u16>,
}

/// A process of the program that stops as on SIGTERM when this one goes away, however that ends: it
/// reads the end of its standard input then.
///
/// A process that outlived this one would keep its run directory, and the same command, started
/// again, could not go on.
pub(crate) struct Tied {
    pub(crate) child: Child,
    stdin: Option<ChildStdin>,
}

impl Nsmc {
    /// Builds the program, in release, for the device chosen; says which that is.
    ///
    /// `NSMC_BIN` names a program that is built already, relative to the current folder.
    pub(crate) fn build(workspace: &Workspace, choice: DeviceChoice) -> Result<Self> {
        let cuda = choice.is_cuda();
        let device = if cuda { "cuda" } else { "cpu" };
        let named = std::env::var_os("NSMC_BIN").filter(|path| !path.is_empty());
        if let Some(path) = named.map(PathBuf::from) {
            ensure!(path.is_file(), "NSMC_BIN: {}: no such file", path.display());
            // Its processes are started in the repository.
            let path = std::path::absolute(path)?;
            return Ok(Self { path, device, gpus: Vec::new() });
        }
        say(match (choice, device) {
            (DeviceChoice::Auto, "cuda") => "device: cuda (there is an NVIDIA GPU)",
            (DeviceChoice::Auto, _) => "device: cpu (no NVIDIA GPU was found)",
            (_, "cuda") => "device: cuda",
            _ => "device: cpu",
        });
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
        let mut build = Command::new(cargo);
        build.current_dir(&workspace.root).args([
            "build",
            "--release",
            "--package",
            "nsmc-cli",
            "--bin",
            "nsmc",
        ]);
        if device == "cuda" {
            build.args(["--features", "nsmc-cli/cuda"]);
        }
        // xtask has a target folder of its own; the program belongs into the workspace's.
        let target = std::env::var_os("CARGO_TARGET_DIR")
            .map_or_else(|| workspace.root.join("target"), PathBuf::from);
        build.arg("--target-dir").arg(&target);
        // Where it lies depends on cargo's settings, too.
        build.arg("--message-format=json-render-diagnostics").stderr(Stdio::inherit());
        let output = build.output().context("cargo build")?;
        let otherwise = match device {
            "cuda" => "; `--device cpu` computes without a GPU",
            _ => "",
        };
        ensure!(
            output.status.success(),
            "the program `nsmc` could not be built for {device}{otherwise}"
        );
        let path = executable(&output.stdout).context("`cargo build` names no program")?;
        Ok(Self { path, device, gpus: Vec::new() })
    }

    /// A program that is built already.
    pub(crate) fn built(path: PathBuf, cuda: bool) -> Self {
        Self { path, device: if cuda { "cuda" } else { "cpu" }, gpus: Vec::new() }
    }

    /// The program on GPUs of this machine.
    pub(crate) fn on(&self, gpus: &[u16]) -> Self {
        Self { path: self.path.clone(), device: self.device, gpus: gpus.to_vec() }
    }

    /// The program under a second name: what is built later under its own changes nothing of it.
    pub(crate) fn kept(&self, path: &Path) -> Result<Self> {
        keep(&self.path, path)?;
        Ok(Self { path: path.into(), device: self.device, gpus: self.gpus.clone() })
    }

    #[cfg(test)]
    pub(crate) fn at(path: PathBuf) -> Self {
        Self::built(path, false)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A subcommand on the device chosen.
    pub(crate) fn command(&self, workspace: &Workspace, arguments: &[OsString]) -> Command {
        let mut command = Command::new(&self.path);
        command.current_dir(&workspace.root).args(arguments);
        let gpus: Vec<String> =
            self.gpus.iter().map(|gpu| format!("{}:{gpu}", self.device)).collect();
        match gpus.as_slice() {
            [] => command.args(["--device", self.device]),
            [gpu] => command.args(["--device", gpu]),
            gpus => command.arg("--devices").arg(gpus.join(",")),
        };
        command
    }

    /// Starts a subcommand that knows `--stop-with-stdin`, in a process group of its own: Ctrl-C goes
    /// to a terminal's whole process group, and this program passes it on, once.
    pub(crate) fn tie(&self, mut command: Command) -> Result<Tied> {
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut child = command
            .arg("--stop-with-stdin")
            .stdin(Stdio::piped())
            .spawn()
            .with_context(|| format!("{}", self.path.display()))?;
        // Taken out of the child, which closes it before it is waited for.
        let stdin = child.stdin.take();
        Ok(Tied { child, stdin })
    }

    /// Where it computes.
    pub(crate) fn device(&self) -> &'static str {
        self.device
    }

    /// What a subcommand prints.
    pub(crate) fn output(&self, workspace: &Workspace, arguments: &[OsString]) -> Result<String> {
        let output = self
            .command(workspace, arguments)
            .stderr(Stdio::inherit())
            .output()
            .with_context(|| format!("{}", self.path.display()))?;
        ensure!(output.status.success(), "{} ended with {}", self.path.display(), output.status);
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs a subcommand that trains to its end, or to its checkpoint when it is to stop; its output is
    /// the terminal's.
    pub(crate) fn run(
        &self,
        workspace: &Workspace,
        arguments: &[OsString],
        stop: &Stop,
    ) -> Result<()> {
        let mut tied = self.tie(self.command(workspace, arguments))?;
        let status = tied.wait_or_stop(stop, || {
            say("stopping: the run writes a checkpoint (again: end it at once)");
        })?;
        ensure!(status.success() || stop.asked() == 0, "stopped; the same command goes on");
        Self::check(status)
    }

    /// Runs a subcommand to its end that reads the keys of the terminal: Ctrl-C is one of them.
    pub(crate) fn run_at_terminal(
        &self,
        workspace: &Workspace,
        arguments: &[OsString],
    ) -> Result<()> {
        let status = self.command(workspace, arguments).status();
        Self::check(status.with_context(|| format!("{}", self.path.display()))?)
    }

    fn check(status: ExitStatus) -> Result<()> {
        ensure!(status.success(), "the run ended with {status}");
        Ok(())
    }
}

/// The program among cargo's messages, a JSON object a line.
fn executable(messages: &[u8]) -> Option<PathBuf> {
    let messages = serde_json::Deserializer::from_slice(messages).into_iter::<serde_json::Value>();
    let paths = messages.filter_map(|message| Some(message.ok()?["executable"].as_str()?.into()));
    paths.last()
}

impl Tied {
    /// Waits for the process to end.
    pub(crate) fn wait(&mut self) -> Result<ExitStatus> {
        let status = self.child.wait()?;
        self.stdin = None;
        Ok(status)
    }

    /// The same; signals are passed on to it, `first` is called before the first.
    fn wait_or_stop(&mut self, stop: &Stop, first: impl Fn()) -> Result<ExitStatus> {
        let mut passed_on = 0;
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            while passed_on < stop.asked() {
                if passed_on == 0 {
                    first();
                }
                passed_on += 1;
                pass_on(&self.child);
            }
            std::thread::sleep(Duration::from_millis(50));
        };
        self.stdin = None;
        Ok(status)
    }

    /// The same, and what it said.
    pub(crate) fn output(mut self, stop: &Stop) -> Result<Output> {
        let (stdout, stderr) = (read(self.child.stdout.take()), read(self.child.stderr.take()));
        let status = self.wait_or_stop(stop, || ())?;
        let said = |reader: Reader| reader.join().expect("reading a pipe does not panic");
        Ok(Output { status, stdout: said(stdout)?, stderr: said(stderr)? })
    }
}

type Reader = JoinHandle<std::io::Result<Vec<u8>>>;

/// Reads a pipe to its end, if there is one: a process that nobody reads from stops when it is full.
fn read(pipe: Option<impl Read + Send + 'static>) -> Reader {
    std::thread::spawn(move || {
        let mut said = Vec::new();
        if let Some(mut pipe) = pipe {
            pipe.read_to_end(&mut said)?;
        }
        Ok(said)
    })
}

impl DeviceChoice {
    /// Whether this is a GPU.
    pub(crate) fn is_cuda(self) -> bool {
        match self {
            Self::Cpu => false,
            Self::Cuda => true,
            Self::Auto => has_cuda(),
        }
    }

    /// The GPUs that were named with `--devices`, if any: each once, and none beside a CPU.
    pub(crate) fn gpus(self, gpus: &[u16]) -> Result<&[u16]> {
        ensure!(
            gpus.is_empty() || self.is_cuda(),
            "`--devices`: expected NVIDIA GPUs, and {}",
            match self {
                Self::Cpu => "`--device cpu` asks for none",
                _ => "none was found (`nvidia-smi -L`); `--device cuda` insists",
            }
        );
        for (place, gpu) in gpus.iter().enumerate() {
            ensure!(!gpus[..place].contains(gpu), "`--devices`: {gpu} stands there twice");
        }
        Ok(gpus)
    }
}

/// A second name for a program, or where the file system has none, a copy. Cargo and linkers put a new
/// file into a program's place and write nothing into the old one.
pub(crate) fn keep(program: &Path, kept: &Path) -> Result<()> {
    // A link to a link could lead elsewhere from its new place.
    let program = fs_err::canonicalize(program)?;
    if kept.exists() {
        fs_err::remove_file(kept)?;
    }
    if fs_err::hard_link(&program, kept).is_err() {
        fs_err::copy(&program, kept)?;
    }
    Ok(())
}

/// Asked once: it may take seconds, and GPUs neither come nor go.
fn has_cuda() -> bool {
    static FOUND: LazyLock<bool> = LazyLock::new(finds_cuda);
    *FOUND
}

fn finds_cuda() -> bool {
    // `nvidia-smi` lists GPUs that this variable hides from programs.
    let hidden = std::env::var("CUDA_VISIBLE_DEVICES")
        .is_ok_and(|visible| ["", "-1", "NoDevFiles"].contains(&visible.trim()));
    if hidden {
        return false;
    }
    Command::new("nvidia-smi")
        .arg("-L")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_where_cargo_says() {
        let messages = b"{\"reason\":\"compiler-artifact\",\"executable\":null}\n\
            {\"reason\":\"compiler-artifact\",\"executable\":\"/t/x86_64-unknown-linux-gnu/release/nsmc\"}\n\
            {\"reason\":\"build-finished\",\"success\":true}\n";
        let path = Path::new("/t/x86_64-unknown-linux-gnu/release/nsmc");
        assert_eq!(executable(messages).as_deref(), Some(path));
        assert_eq!(executable(b""), None);
    }

    #[test]
    fn a_run_gets_the_gpus_that_were_named() {
        let arguments = |cuda: bool, gpus: &[u16]| -> Vec<String> {
            let nsmc = Nsmc::built("nsmc".into(), cuda).on(gpus);
            let command = nsmc.command(&Workspace::find(), &["train".into()]);
            command.get_args().map(|text| text.to_string_lossy().into_owned()).collect()
        };
        assert_eq!(arguments(false, &[]), ["train", "--device", "cpu"]);
        assert_eq!(arguments(true, &[]), ["train", "--device", "cuda"]);
        assert_eq!(arguments(true, &[3]), ["train", "--device", "cuda:3"]);
        assert_eq!(arguments(true, &[0, 2]), ["train", "--devices", "cuda:0,cuda:2"]);
    }

    #[test]
    fn gpus_are_named_once_and_not_beside_the_cpu() {
        assert_eq!(DeviceChoice::Cpu.gpus(&[]).unwrap(), [0; 0]);
        assert_eq!(DeviceChoice::Cuda.gpus(&[1, 0]).unwrap(), [1, 0]);
        let error = |choice: DeviceChoice, gpus| choice.gpus(gpus).unwrap_err().to_string();
        assert!(error(DeviceChoice::Cuda, &[1, 0, 1]).contains("1 stands there twice"));
        assert!(error(DeviceChoice::Cpu, &[0]).contains("`--device cpu` asks for none"));
    }
}
