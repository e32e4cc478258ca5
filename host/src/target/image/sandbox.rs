//! Runs e2fsck and debugfs, which parse images that may be hostile: without privileges, with limits and with a deadline.
//!
//! `prlimit`, `setpriv` and `unshare` of util-linux, an essential package of Debian and Ubuntu, set the limits, drop the
//! privileges and leave the namespaces of this host. To do it between fork and exec in this program would need `unsafe`.
//!
//! The namespace of process ids is there for what a hostile image may start: a copy that debugfs has written becomes the image
//! with the password in it, and no process may still have it open then. The kernel ends all processes of the namespace with
//! its first one.

use crate::interrupt;
use crate::target::error::{Error, Result, io_failure};
use std::fs::{File, Metadata, Permissions};
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::LazyLock;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use azaion_agent::common::clock::{Clock, SystemClock};
use nix::sys::resource::{Resource, getrlimit};
use nix::unistd::geteuid;
use rustix::fs::{Mode, OFlags};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{Pid, Signal, kill_process_group};

/// Where programs are searched, whatever the caller's `PATH` says.
const DIRECTORIES: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];
/// The image, for the program: its standard input, so that it needs no name.
pub(super) const IMAGE: &str = "/proc/self/fd/0";

/// User and group of the program if root runs this one. Debian's policy reserves the number and no account has it: `nobody` is
/// the user of other services, which could then trace the program or open the image through its `/proc/PID/fd`.
const ID: u32 = 65_533;

const WRAPPERS: [&str; 3] = ["prlimit", "setpriv", "unshare"];
/// Namespaces of its own. There is no network in a new one.
const NAMESPACES: [&str; 5] = ["--pid", "--net", "--ipc", "--fork", "--kill-child"];

/// Bytes of address space.
const MOST_MEMORY: u64 = 256 << 20;
/// Bytes of the stack, and of that of each thread: e2fsck starts one for each processor to read bitmaps.
const STACK: u64 = 1 << 20;
const MOST_FILES: u64 = 64;
/// Processes and threads of its user.
const MOST_PROCESSES: u64 = 1024;
/// Bytes of its output that are kept.
const MOST_OUTPUT: u64 = 4096;

/// How long it may run: this, and as long again for each GiB that the image has on the disk. A disk with seek times reads the
/// metadata of a full image in less than half of it.
const BASE_SECONDS: u64 = 10;
const SECONDS_PER_GIB: u64 = 10;

const POLL: Duration = Duration::from_millis(2);

/// A program of e2fsprogs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Program {
    /// Only reads.
    E2fsck,
    /// Writes to the image.
    Debugfs,
}

impl Program {
    fn name(self) -> &'static str {
        match self {
            Self::E2fsck => "e2fsck",
            Self::Debugfs => "debugfs",
        }
    }
}

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// With an exit code.
    Code(i32),
    /// By a signal: a limit, or a crash.
    Signal(i32),
    /// At its deadline, after so many seconds.
    Deadline(u64),
}

/// A program that has run.
#[derive(Debug)]
pub(super) struct Ended {
    program: Program,
    pub(super) end: End,
    /// The start of what it said, in one line.
    pub(super) words: String,
}

impl Ended {
    /// Why it did not do its work.
    pub(super) fn failure(&self) -> String {
        let (name, words) = (self.program.name(), &self.words);
        match self.end {
            End::Deadline(seconds) => format!("{name} did not end within {seconds} s"),
            End::Signal(signal) => format!("{name} was ended by signal {signal}, at one of its limits: {words}"),
            End::Code(code) => format!("{name} ended with {code}: {words}"),
        }
    }
}

/// Whether the programs are installed.
///
/// # Errors
/// One is not; the message names its package.
pub(super) fn is_possible() -> Result<()> {
    [Program::E2fsck, Program::Debugfs].into_iter().try_for_each(|program| find(program.name()).map(drop))?;
    WRAPPERS.iter().try_for_each(|wrapper| find(wrapper).map(drop))
}

#[expect(clippy::disallowed_methods, reason = "programs, by names that are fixed")]
fn find(name: &str) -> Result<PathBuf> {
    let package = if WRAPPERS.contains(&name) { "util-linux" } else { "e2fsprogs" };
    let paths = DIRECTORIES.iter().map(|directory| Path::new(directory).join(name));
    paths.into_iter().find(|path| path.exists()).ok_or_else(|| {
        let message = format!(
            "the first device.conf of an image needs {name}, which this host does not have; install it:  apt-get install {package}"
        );
        Error::Program(message)
    })
}

/// Runs a program on an image, which has to be unnamed or readable by everybody: if root runs this, the program's user gets it
/// meanwhile, to write to it, or only to read it. `input` is another file for it, by the name that [`name_of`] gives.
///
/// # Errors
/// It can't be started.
pub(super) fn run(program: Program, arguments: &[&str], image: &File, input: Option<&File>) -> Result<Ended> {
    let fail = |error: io::Error| io_failure(error, format!("running {}", program.name()));
    let metadata = image.metadata().map_err(fail)?;
    let seconds = deadline(metadata.blocks());
    let most_written = if program == Program::Debugfs { metadata.len() } else { 0 };
    let _lent = Lent::new(program, image, metadata).map_err(fail)?;
    let stdin = if program == Program::Debugfs { image.try_clone() } else { read_only(image) }.map_err(fail)?;
    if let Some(input) = input {
        // Whatever else is started meanwhile inherits it, too: there is no secret in it.
        fcntl_setfd(input, FdFlags::empty()).map_err(|errno| fail(errno.into()))?;
    }
    let (output, writer) = io::pipe().map_err(fail)?;
    let mut command = confined(program, seconds, most_written)?;
    command.args(arguments).stdin(stdin).stdout(writer.try_clone().map_err(fail)?).stderr(writer);
    let child = command.spawn().map_err(fail)?;
    // The ends of the pipe that are open here.
    drop(command);
    let (end, words) = wait(child, output, seconds).map_err(fail)?;
    if let End::Code(code @ 126..) = end {
        let message = format!("{} could not be started without privileges ({code}): {words}", program.name());
        return Err(Error::Program(message));
    }
    let ended = Ended { program, end, words };
    log::debug!("{ended:?}");
    Ok(ended)
}

/// A name by which the program can open a file of ours that it inherits.
pub(super) fn name_of(file: &File) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

/// Whether the program's user may read a file as it is.
pub(super) fn may_read(image: &File) -> io::Result<bool> {
    Ok(!geteuid().is_root() || image.metadata()?.mode() & 0o004 != 0)
}

fn deadline(blocks: u64) -> u64 {
    BASE_SECONDS + (blocks.saturating_mul(512 * SECONDS_PER_GIB) >> 30)
}

/// The same file, opened again to be read only: nothing that the program does can change it.
fn read_only(file: &File) -> io::Result<File> {
    Ok(rustix::fs::open(name_of(file), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?.into())
}

/// The command that starts a program with its limits and without privileges.
fn confined(program: Program, seconds: u64, most_written: u64) -> Result<Command> {
    let setpriv = find("setpriv")?;
    let mut command = Command::new(&setpriv);
    // The program ends with this one, and so does `unshare`, which waits for it.
    command.args(["--pdeathsig", "KILL", "--"]).arg(find("prlimit")?);
    for (option, resource, most) in [
        ("cpu", Resource::RLIMIT_CPU, seconds),
        ("as", Resource::RLIMIT_AS, MOST_MEMORY),
        ("stack", Resource::RLIMIT_STACK, STACK),
        ("fsize", Resource::RLIMIT_FSIZE, most_written),
        ("nofile", Resource::RLIMIT_NOFILE, MOST_FILES),
        ("nproc", Resource::RLIMIT_NPROC, MOST_PROCESSES),
        ("core", Resource::RLIMIT_CORE, 0),
    ] {
        // Only root may raise one.
        let most = getrlimit(resource).map_or(most, |(_, hard)| most.min(hard));
        command.arg(format!("--{option}={most}"));
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
    // The admin's password may be in the environment. A Ctrl-C at the terminal goes to another process group.
    command.env_clear().env("PATH", DIRECTORIES.join(":")).env("LC_ALL", "C").current_dir("/").process_group(0);
    Ok(command)
}

/// Whether this process may make namespaces: not without root, where the program can do no more than the user anyway, and not
/// in every container.
static HAS_NAMESPACES: LazyLock<bool> = LazyLock::new(|| {
    let (Ok(unshare), Ok(nothing)) = (find("unshare"), find("true")) else { return false };
    let mut command = Command::new(unshare);
    command.args(NAMESPACES).arg("--").arg(nothing).env_clear().current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    geteuid().is_root() && command.status().is_ok_and(|status| status.success())
});

/// Waits for the program's end, or ends it.
fn wait(mut child: Child, mut output: impl Read + Send + 'static, seconds: u64) -> io::Result<(End, String)> {
    let clock = SystemClock;
    let until = clock.boot() + Duration::from_secs(seconds);
    let (sender, receiver) = mpsc::channel();
    // What nobody reads would block it.
    thread::Builder::new().spawn(move || {
        let mut kept = Vec::new();
        let _ = (&mut output).take(MOST_OUTPUT).read_to_end(&mut kept);
        let _ = io::copy(&mut output, &mut io::sink());
        // Nobody waits any more for what a program says after its end.
        let _ = sender.send(kept);
    })?;
    // A signal ends the program as its deadline does.
    let is_over = || clock.boot() >= until || interrupt::check().is_err();
    let said = loop {
        match receiver.recv_timeout(POLL) {
            Err(RecvTimeoutError::Timeout) if !is_over() => {}
            said => break said.unwrap_or_default(),
        }
    };
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if is_over() {
            break None;
        }
        clock.sleep(POLL);
    };
    let end = if let Some(status) = status {
        end_of(status)
    } else {
        // Its whole group, by the number of a process that is still there: nobody else has it.
        if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        child.kill()?;
        child.wait()?;
        interrupt::check()?;
        End::Deadline(seconds)
    };
    Ok((end, words(&said)))
}

fn end_of(status: ExitStatus) -> End {
    status.code().map_or_else(|| End::Signal(status.signal().unwrap_or_default()), End::Code)
}

/// Text in one line.
fn words(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A copy of an image that the program may use until this is dropped: its group may read it, or its user owns it.
struct Lent<'f>(Option<(&'f File, Metadata)>);

impl<'f> Lent<'f> {
    fn new(program: Program, image: &'f File, metadata: Metadata) -> io::Result<Self> {
        if !geteuid().is_root() || program == Program::E2fsck && may_read(image)? {
            return Ok(Self(None));
        }
        // Before anything is changed, so that what fails half way is taken back, too.
        let lent = Self(Some((image, metadata)));
        if program == Program::Debugfs {
            fchown(image, Some(ID), Some(ID))?;
        } else {
            image.set_permissions(Permissions::from_mode(0o640))?;
            fchown(image, None, Some(ID))?;
        }
        Ok(lent)
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        let Some((image, before)) = &self.0 else { return };
        let taken = fchown(image, Some(before.uid()), Some(before.gid()))
            .and_then(|()| image.set_permissions(before.permissions()));
        if let Err(error) = taken {
            log::error!("a copy of the image could not be taken back: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Promise: an image that takes more of the disk has more time, and one that claims to be large has not.
    #[test]
    fn deadlines() {
        assert_eq!(deadline(0), 10);
        assert_eq!(deadline((64 << 20) / 512), 10);
        assert_eq!(deadline((14 << 30) / 512), 150);
        assert_eq!(deadline(u64::MAX), 10 + (u64::MAX >> 30));
        let claiming = tempfile::tempfile().unwrap();
        claiming.set_len(1 << 40).unwrap();
        assert_eq!(deadline(claiming.metadata().unwrap().blocks()), 10);
    }

    // Promise: a program that does not end is ended, and no more is kept of what it says than a page.
    #[test]
    fn ended_at_the_deadline() {
        for (script, seconds, end) in [
            ("yes", 1, End::Deadline(1)),
            ("exec >&- 2>&-; sleep 60", 1, End::Deadline(1)),
            ("seq 100000; exit 3", 60, End::Code(3)),
            ("kill -9 $$", 60, End::Signal(9)),
        ] {
            let (output, writer) = io::pipe().unwrap();
            let mut command = Command::new("/bin/sh");
            command.args(["-c", script]).process_group(0).stdin(Stdio::null());
            command.stdout(writer.try_clone().unwrap()).stderr(writer);
            let child = command.spawn().unwrap();
            drop(command);
            let (ended, words) = wait(child, output, seconds).unwrap();
            assert_eq!(ended, end, "{script}");
            assert!(words.len() <= 4096, "{script}");
        }
    }

    // Promise: a copy is the caller's again, whatever the program was.
    #[test]
    fn copies_come_back() {
        for program in [Program::E2fsck, Program::Debugfs] {
            let file = tempfile::tempfile().unwrap();
            file.set_permissions(Permissions::from_mode(0o600)).unwrap();
            let what = |metadata: Metadata| (metadata.mode(), metadata.uid(), metadata.gid());
            let before = what(file.metadata().unwrap());
            let lent = Lent::new(program, &file, file.metadata().unwrap()).unwrap();
            assert_eq!(what(file.metadata().unwrap()) != before, geteuid().is_root());
            drop(lent);
            assert_eq!(what(file.metadata().unwrap()), before);
        }
    }
}
