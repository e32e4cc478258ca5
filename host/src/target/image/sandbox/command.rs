//! Builds the command that runs a program without privileges, with resource limits and in namespaces of its own.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use nix::sys::resource::{Resource, getrlimit};
use nix::unistd::geteuid;

use super::Program;
use super::access::ID;
use crate::target::error::{Error, Result};

/// Directories that are searched for programs; the caller's `PATH` is not used.
const DIRECTORIES: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];
/// Programs that set the limits, drop the privileges and create the namespaces.
const WRAPPERS: [&str; 3] = ["prlimit", "setpriv", "unshare"];
/// Arguments of `unshare`: new namespaces. A new network namespace has no network.
const NAMESPACES: [&str; 5] = ["--pid", "--net", "--ipc", "--fork", "--kill-child"];

/// Limit of the address space, in bytes.
const MAX_MEMORY: u64 = 256 << 20;
/// Limit of the stack, in bytes. It also sets the stack of each thread: e2fsck starts one per processor to read
/// bitmaps.
const MAX_STACK: u64 = 1 << 20;
/// Limit of open files.
const MAX_FILES: u64 = 64;
/// Limit of processes and threads of its user.
const MAX_PROCESSES: u64 = 1024;

/// Checks that all programs are installed.
///
/// # Errors
/// One is missing; the message names its package.
pub(in crate::target::image) fn is_possible() -> Result<()> {
    [Program::E2fsck, Program::Debugfs].into_iter().try_for_each(|program| find(program.name()).map(drop))?;
    WRAPPERS.iter().try_for_each(|wrapper| find(wrapper).map(drop))
}

/// Returns the path of a program.
#[expect(clippy::disallowed_methods, reason = "programs, by names that are fixed")]
fn find(name: &str) -> Result<PathBuf> {
    let package = if WRAPPERS.contains(&name) { "util-linux" } else { "e2fsprogs" };
    let paths = DIRECTORIES.iter().map(|directory| Path::new(directory).join(name));
    paths.into_iter().find(|path| path.exists()).ok_or_else(|| {
        let message = format!(
            "{name} is not installed, but writing the first device.conf of an image needs it; run \
             `apt-get install {package}`"
        );
        Error::Program(message)
    })
}

/// Builds the command that starts a program with its limits and without privileges.
pub(super) fn confined(program: Program, seconds: u64, max_written: u64) -> Result<Command> {
    let setpriv = find("setpriv")?;
    let mut command = Command::new(&setpriv);
    // If this process ends, the kernel kills the program, and `unshare`, which waits for it.
    command.args(["--pdeathsig", "KILL", "--"]).arg(find("prlimit")?);
    for (option, resource, limit) in [
        ("cpu", Resource::RLIMIT_CPU, seconds),
        ("as", Resource::RLIMIT_AS, MAX_MEMORY),
        ("stack", Resource::RLIMIT_STACK, MAX_STACK),
        ("fsize", Resource::RLIMIT_FSIZE, max_written),
        ("nofile", Resource::RLIMIT_NOFILE, MAX_FILES),
        ("nproc", Resource::RLIMIT_NPROC, MAX_PROCESSES),
        ("core", Resource::RLIMIT_CORE, 0),
    ] {
        // Only root may raise a hard limit.
        let limit = getrlimit(resource).map_or(limit, |(_, hard)| limit.min(hard));
        command.arg(format!("--{option}={limit}"));
    }
    if *HAS_NAMESPACES {
        command.arg("--").arg(find("unshare")?).args(NAMESPACES);
    }
    command.arg("--").arg(setpriv).args(["--no-new-privs", "--inh-caps=-all", "--pdeathsig", "KILL"]);
    if geteuid().is_root() {
        let id = ID.to_string();
        command.args(["--reuid", &id, "--regid", &id, "--clear-groups", "--bounding-set=-all"]);
    }
    command.arg("--").arg(find(program.name())?);
    // The environment may contain the admin's password. Its own process group keeps a Ctrl-C at the terminal away from
    // it.
    command.env_clear().env("PATH", DIRECTORIES.join(":")).env("LC_ALL", "C").current_dir("/").process_group(0);
    Ok(command)
}

/// Whether this process may create namespaces. Without root it may not, but then the program can do no more than the
/// caller anyway; some containers do not allow it either.
static HAS_NAMESPACES: LazyLock<bool> = LazyLock::new(|| {
    let (Ok(unshare), Ok(no_op)) = (find("unshare"), find("true")) else { return false };
    let mut command = Command::new(unshare);
    command.args(NAMESPACES).arg("--").arg(no_op).env_clear().current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    geteuid().is_root() && command.status().is_ok_and(|status| status.success())
});
