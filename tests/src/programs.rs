//! Where the programs under test are, and how they are run.

use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::thread;

use anyhow::{Context, bail, ensure};

use crate::{provoked, schemas};

/// Returns the directory of the workspace.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// Returns the directory that cargo builds into.
pub fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), |dir| workspace().join(dir))
}

/// Builds packages with cargo.
///
/// # Errors
/// The build failed; cargo has said why.
pub fn build(arguments: &[&str]) -> anyhow::Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(cargo);
    let status =
        outside_cargo(&mut command).current_dir(workspace()).args(["build", "--quiet"]).args(arguments).status();
    ensure!(status.context("starting cargo")?.success(), "cargo build {} failed", arguments.join(" "));
    Ok(())
}

/// Removes the variables that cargo sets for a program that it runs: they would make the build scripts of a nested build run again.
pub fn outside_cargo(command: &mut Command) -> &mut Command {
    let kept = |name: &str| ["CARGO_HOME", "CARGO_TARGET_DIR"].contains(&name) || name.starts_with("CARGO_PROFILE_");
    let told = |name: &str| name == "OUT_DIR" || name.starts_with("CARGO_") && !kept(name);
    for (name, _) in std::env::vars_os().filter(|(name, _)| told(&name.to_string_lossy())) {
        command.env_remove(name);
    }
    command
}

/// Runs somebody else's program to its successful end; its standard output.
///
/// # Errors
/// It can't be started, or failed; the message has all that it said.
pub fn output(command: &mut Command) -> anyhow::Result<String> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("starting {command:?}; ./tests/run installs what is missing"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let said = text(&output.stdout);
    ensure!(output.status.success(), "{command:?} ended with {}:\n{said}{}", output.status, text(&output.stderr));
    Ok(said)
}

/// Returns the directory with `azaion-provision` and `azaion-agent`, built once per process.
///
/// # Errors
/// The build failed.
pub fn native() -> anyhow::Result<&'static Path> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        // With --all, each program is built with its own features only, as `.ci/package` does. That costs a minute, because
        // the libraries they share are built three times then.
        let separate: [&[&str]; 2] = [&["-p", "azaion-provision"], &["-p", "azaion-agent"]];
        let builds: &[&[&str]] = if cfg!(long) { &separate } else { &[&["--workspace", "--all-targets"]] };
        builds.iter().try_for_each(|arguments| build(arguments)).map_err(|e| format!("{e:#}"))?;
        Ok(target_dir().join("debug"))
    });
    built.as_deref().map_err(|error| anyhow::anyhow!("{error}"))
}

/// The target that the agent is built for.
const ARM64: &str = "aarch64-unknown-linux-musl";

/// The agent's package for arm64, as `.ci/package --agent` makes it, once a process.
///
/// # Errors
/// The build failed; the message names what to install.
pub fn arm64_package() -> anyhow::Result<&'static Path> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        let mut command = Command::new(workspace().join(".ci/package"));
        let package = output(outside_cargo(command.arg("--agent"))).map_err(|e| {
            format!("{e:#}; is the Rust target there (rustup target add {ARM64}), and gcc-aarch64-linux-gnu?")
        })?;
        Ok(workspace().join(package.trim_end()))
    });
    built.as_deref().map_err(|error| anyhow::anyhow!("{error}"))
}

/// The agent for aarch64, statically linked, as it is shipped: the one in the package.
///
/// # Errors
/// The build failed.
pub fn arm64_agent() -> anyhow::Result<PathBuf> {
    arm64_package()?;
    Ok(target_dir().join("package").join(ARM64).join("release/azaion-agent"))
}

/// How a program ended, and what it said.
#[derive(Clone, Debug)]
pub struct Run {
    /// The program and its arguments, which the kernel shows to everybody (`/proc/PID/cmdline`).
    pub command_line: String,
    /// Its exit code; none if a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Run {
    /// Standard output, as the JSON objects that its lines are.
    ///
    /// # Errors
    /// A line is no JSON.
    pub fn json_lines(&self) -> anyhow::Result<Vec<serde_json::Value>> {
        self.stdout.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
    }

    /// The run itself, if it ended with `code`.
    ///
    /// # Errors
    /// It did not; the message has all that it said.
    pub fn ended_with(self, code: i32) -> anyhow::Result<Self> {
        if self.code == Some(code) {
            return Ok(self);
        }
        bail!("ended with {:?}, not {code}: {}\n{}{}", self.code, self.command_line, self.stdout, self.stderr)
    }

    /// All that it said, and how it was called.
    pub fn words(&self) -> String {
        format!("$ {}\n{}{}[{:?}]\n", self.command_line, self.stdout, self.stderr, self.code)
    }
}

/// A program that runs.
#[derive(Debug)]
pub struct Running {
    child: Child,
    command_line: String,
}

/// Starts a command with nothing in its environment but what it was given.
///
/// # Errors
/// It can't be started.
pub fn start(command: &mut Command) -> anyhow::Result<Running> {
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let child = child.with_context(|| format!("starting {command:?}"))?;
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let command_line = words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ");
    Ok(Running { child, command_line })
}

impl Running {
    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Ends it at once, as a power cut would (SIGKILL).
    ///
    /// # Errors
    /// The system's refusal.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill().context("killing a program under test")
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// Its output can't be read, or is JSON that does not agree with its schema.
    pub fn wait(mut self) -> anyhow::Result<Run> {
        let mut stderr = self.child.stderr.take().context("standard error")?;
        let errors = thread::spawn(move || {
            let mut text = Vec::new();
            stderr.read_to_end(&mut text).map(|_| text)
        });
        let mut stdout = Vec::new();
        self.child.stdout.take().context("standard output")?.read_to_end(&mut stdout)?;
        let stderr = errors.join().map_err(|_| anyhow::anyhow!("reading standard error"))??;
        let code = self.child.wait()?.code();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let run = Run { command_line: self.command_line, code, stdout: text(stdout), stderr: text(stderr) };
        schemas::check_output(&run)?;
        if cfg!(long) {
            provoked::note(&run)?;
        }
        Ok(run)
    }
}

/// Copies one of our programs to where anybody may run it. By another program: a file that this one has open for writing
/// can't be run while any thread forks.
///
/// # Errors
/// It can't be copied.
pub fn copy_to(name: &str, place: &Path) -> anyhow::Result<()> {
    output(Command::new("cp").arg(native()?.join(name)).arg(place)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Promise: the host tool that the tests run has no part of the agent that only a device needs, as the shipped one. Cargo
    // lists the sources of each program beside it.
    #[test]
    #[cfg_attr(not(long), ignore = "long: ./tests/run --all, which builds each program alone")]
    fn the_host_tool_is_built_as_it_is_shipped() -> anyhow::Result<()> {
        let sources = |program: &str| Ok::<_, anyhow::Error>(std::fs::read_to_string(native()?.join(program))?);
        let (host, agent) = (sources("azaion-provision.d")?, sources("azaion-agent.d")?);
        assert!(host.contains("/agent/src/api/http.rs") && agent.contains("/agent/src/device/run.rs"), "{host}{agent}");
        assert!(
            !host.contains("/agent/src/device/"),
            "the host tool is built with the agent's feature `device`: {host}"
        );
        Ok(())
    }
}
