//! Runs e2fsck and debugfs on images that may be hostile: without privileges, with resource limits and with a deadline.
//!
//! `prlimit`, `setpriv` and `unshare` of util-linux, an essential package of Debian and Ubuntu, set the limits, drop
//! the privileges and leave the host's namespaces. Doing this between fork and exec in this program would need
//! `unsafe`.
//!
//! The PID namespace guards against processes that a hostile image may start: the copy that debugfs has written becomes
//! the image with the password in it, and no process may still have it open then. The kernel kills all processes of the
//! namespace when its first one ends.

mod access;
mod command;

use crate::interrupt;
use crate::target::error::{Error, Result, io_failure};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use azaion_agent::common::clock::{Clock, SystemClock};
use rustix::fs::{Mode, OFlags};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{Pid, Signal, kill_process_group};

use access::Access;
pub(super) use access::may_read;
use command::confined;
pub(super) use command::is_possible;

/// Path under which the program opens the image: its standard input, because the image may have no name.
pub(super) const IMAGE: &str = "/proc/self/fd/0";

/// Bytes of the program's output that are kept.
const MAX_OUTPUT: u64 = 4096;

/// Seconds that a program may run, and seconds more for each GiB that the image uses on disk. A hard disk reads the
/// metadata of a full image in less than half of that time.
const BASE_SECONDS: u64 = 10;
const SECONDS_PER_GIB: u64 = 10;

/// Interval of the checks for the program's end, its deadline and signals.
const POLL: Duration = Duration::from_millis(2);

/// A program of e2fsprogs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Program {
    /// Only reads the image.
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
    /// It exited with a code.
    Code(i32),
    /// A signal killed it: a limit, or a crash.
    Signal(i32),
    /// It was killed at its deadline, after this many seconds.
    Deadline(u64),
}

/// The result of a program that has run.
#[derive(Debug)]
pub(super) struct Ended {
    program: Program,
    pub(super) end: End,
    /// The start of its output, in one line.
    pub(super) output: String,
}

impl Ended {
    /// Returns the reason why it failed.
    pub(super) fn failure(&self) -> String {
        let (name, output) = (self.program.name(), &self.output);
        match self.end {
            End::Deadline(seconds) => format!("{name} did not end within {seconds} s"),
            End::Signal(signal) => {
                format!("{name} was killed by signal {signal}, probably at a resource limit: {output}")
            }
            End::Code(code) => format!("{name} exited with code {code}: {output}"),
        }
    }
}

/// Runs a program on an image, which must be unnamed or readable by everybody. If the caller is root, the program's
/// user gets write or read access to the image while the program runs. `input` is another file for the program;
/// [`path_of`] returns its path.
///
/// # Errors
/// The program cannot be started, or a signal interrupted this process.
pub(super) fn run(program: Program, arguments: &[&str], image: &File, input: Option<&File>) -> Result<Ended> {
    let fail = |error: io::Error| io_failure(error, format!("running {}", program.name()));
    let metadata = image.metadata().map_err(fail)?;
    let seconds = deadline(metadata.blocks());
    let max_written = if program == Program::Debugfs { metadata.len() } else { 0 };
    let _access = Access::grant(program, image, metadata).map_err(fail)?;
    let stdin = if program == Program::Debugfs { image.try_clone() } else { read_only(image) }.map_err(fail)?;
    if let Some(input) = input {
        // Other programs that are started meanwhile inherit it, too. It contains no secret.
        fcntl_setfd(input, FdFlags::empty()).map_err(|errno| fail(errno.into()))?;
    }
    let (reader, writer) = io::pipe().map_err(fail)?;
    let mut command = confined(program, seconds, max_written)?;
    command.args(arguments).stdin(stdin).stdout(writer.try_clone().map_err(fail)?).stderr(writer);
    let child = command.spawn().map_err(fail)?;
    // Closes the write ends of the pipe in this process.
    drop(command);
    let (end, output) = wait(child, reader, seconds).map_err(fail)?;
    if let End::Code(code @ 126..) = end {
        let message = format!("{} cannot be started without privileges (exit code {code}): {output}", program.name());
        return Err(Error::Program(message));
    }
    let ended = Ended { program, end, output };
    log::debug!("{ended:?}");
    Ok(ended)
}

/// Returns the path by which the program can open a file that it inherits from this process.
pub(super) fn path_of(file: &File) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

/// Returns the seconds that a program may run on an image with this many 512-byte blocks on disk.
fn deadline(blocks: u64) -> u64 {
    BASE_SECONDS + (blocks.saturating_mul(512 * SECONDS_PER_GIB) >> 30)
}

/// Opens a file again, read-only, so that the program cannot change it.
fn read_only(file: &File) -> io::Result<File> {
    Ok(rustix::fs::open(path_of(file), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?.into())
}

/// Waits until the program ends, or kills it at its deadline or after a signal to this process. Returns how it ended
/// and its output.
fn wait(mut child: Child, mut reader: impl Read + Send + 'static, seconds: u64) -> io::Result<(End, String)> {
    let clock = SystemClock;
    let until = clock.boot() + Duration::from_secs(seconds);
    let (sender, receiver) = mpsc::channel();
    // A full pipe would block the program.
    thread::Builder::new().spawn(move || {
        let mut kept = Vec::new();
        let _ = (&mut reader).take(MAX_OUTPUT).read_to_end(&mut kept);
        let _ = io::copy(&mut reader, &mut io::sink());
        // Fails if the receiver no longer waits.
        let _ = sender.send(kept);
    })?;
    // A signal to this process ends the program, as its deadline does.
    let is_over = || clock.boot() >= until || interrupt::check().is_err();
    let kept = loop {
        match receiver.recv_timeout(POLL) {
            Err(RecvTimeoutError::Timeout) if !is_over() => {}
            kept => break kept.unwrap_or_default(),
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
        // Kill the whole process group. The child has not been waited for, so its id cannot belong to another process.
        if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        child.kill()?;
        child.wait()?;
        interrupt::check()?;
        End::Deadline(seconds)
    };
    Ok((end, one_line(&kept)))
}

fn end_of(status: ExitStatus) -> End {
    status.code().map_or_else(|| End::Signal(status.signal().unwrap_or_default()), End::Code)
}

/// Joins the text of an output into one line.
fn one_line(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use std::fs::{Metadata, Permissions};
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;
    use std::process::{Command, Stdio};

    use nix::unistd::geteuid;

    use super::*;

    // Promise: an image that uses more of the disk gets more time; one that only claims to be large does not.
    #[test]
    fn deadline_depends_on_disk_usage() {
        assert_eq!(deadline(0), 10);
        assert_eq!(deadline((64 << 20) / 512), 10);
        assert_eq!(deadline((14 << 30) / 512), 150);
        assert_eq!(deadline(u64::MAX), 10 + (u64::MAX >> 30));
        let sparse_file = tempfile::tempfile().unwrap();
        sparse_file.set_len(1 << 40).unwrap();
        assert_eq!(deadline(sparse_file.metadata().unwrap().blocks()), 10);
    }

    // Promise: a program that does not end is killed, and at most 4096 bytes of its output are kept.
    #[test]
    fn killed_at_the_deadline() {
        for (script, seconds, end) in [
            ("yes", 1, End::Deadline(1)),
            ("exec >&- 2>&-; sleep 60", 1, End::Deadline(1)),
            ("seq 100000; exit 3", 60, End::Code(3)),
            ("kill -9 $$", 60, End::Signal(9)),
        ] {
            let (reader, writer) = io::pipe().unwrap();
            let mut command = Command::new("/bin/sh");
            command.args(["-c", script]).process_group(0).stdin(Stdio::null());
            command.stdout(writer.try_clone().unwrap()).stderr(writer);
            let child = command.spawn().unwrap();
            drop(command);
            let (ended, output) = wait(child, reader, seconds).unwrap();
            assert_eq!(ended, end, "{script}");
            assert!(output.len() <= 4096, "{script}");
        }
    }

    // Promise: after either program, a copy has its old owner and mode again.
    #[test]
    fn access_is_revoked() {
        for program in [Program::E2fsck, Program::Debugfs] {
            let file = tempfile::tempfile().unwrap();
            file.set_permissions(Permissions::from_mode(0o600)).unwrap();
            let attributes = |metadata: Metadata| (metadata.mode(), metadata.uid(), metadata.gid());
            let before = attributes(file.metadata().unwrap());
            let access = Access::grant(program, &file, file.metadata().unwrap()).unwrap();
            assert_eq!(attributes(file.metadata().unwrap()) != before, geteuid().is_root());
            drop(access);
            assert_eq!(attributes(file.metadata().unwrap()), before);
        }
    }
}
