//! Giving up root: `device.conf` is root's alone, and once it is open, nothing else needs root.
//!
//! The service starts as root, without the right to do more than this (`ExecStart=!` in `azaion-agent.service`), and so do
//! `azaion-agent token` and `status` in an admin's shell. From [`become_agent`] on, the process is the user [`USER`], and what
//! it reads (policy, cache, answers of the API) is read without any right that could be misused. All files of the
//! agent belong to that user, also where root started it.

use std::fs::DirBuilder;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open};
use nix::sys::prctl::{set_dumpable, set_no_new_privs};
use nix::sys::stat::{Mode, fchmod, fstat};
use nix::unistd::{
    Gid, Group, Uid, User, fchown, fchownat, getgroups, getresgid, getresuid, setgroups, setresgid, setresuid,
};

use super::files::{GROUP, STATE_FILES, THIS_BOOTS_FILES};
use super::paths::Paths;

/// The agent's own user, made by `azaion.sysusers`.
pub const USER: &str = "azaion-agent";

/// Root could not be given up for good.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's message says it")]
pub enum PrivilegesError {
    #[error("the user {USER} can't be looked up")]
    Lookup(#[source] Errno),
    #[error("the user {USER} or its group is root's; delete it, and run systemd-sysusers azaion.conf")]
    IsRoot,
    #[error("becoming the user {USER}: {step}")]
    Change {
        step: &'static str,
        #[source]
        source: Errno,
    },
    #[error("becoming the user {USER}: {0}")]
    NotFinal(&'static str),
}

/// Turns a process of root's into one of the user [`USER`], without a way back; other processes stay as they are. So
/// does root's where the files do not lie under `/` (a test, an image's tree), or where there is no such user.
///
/// Before that, root gives the agent's directories and files to that user, where it may: those of a release that ran as
/// root, and `/run/azaion` where the service has not run since the boot. The service may not; systemd has done it.
///
/// # Errors
/// The step that failed. The process may have lost some of its rights, and has to end.
pub fn become_agent(paths: &Paths) -> Result<(), PrivilegesError> {
    if !Uid::effective().is_root() || paths.under_root(Path::new("/")) != Path::new("/") {
        return Ok(());
    }
    let Some((uid, gid)) = agent()? else {
        log::warn!("there is no user {USER}, going on as root; is the package installed whole?");
        return Ok(());
    };
    for (directory, files) in [(paths.run_dir(), &THIS_BOOTS_FILES[..]), (paths.state_dir(), &STATE_FILES[..])] {
        if let Err(error) = hand_over(&directory, files, uid, gid) {
            // Where it matters, the file that can't be written says so.
            log::info!("{} can't be given to the user {USER}: {error}", directory.display());
        }
    }
    change_to(uid, gid)?;
    confirm(uid, gid)
}

/// The numbers of the agent's user and of the group that may read the token.
fn agent() -> Result<Option<(Uid, Gid)>, PrivilegesError> {
    let Some(user) = User::from_name(USER).map_err(PrivilegesError::Lookup)? else { return Ok(None) };
    let group = Group::from_name(GROUP).map_err(PrivilegesError::Lookup)?;
    let gid = group.map_or(user.gid, |group| group.gid);
    if user.uid.is_root() || gid.as_raw() == 0 {
        return Err(PrivilegesError::IsRoot);
    }
    Ok(Some((user.uid, gid)))
}

/// Gives a directory of root's to the agent, and the files in it that an agent as root has written. One that is missing is
/// made. One that is not root's is left alone: somebody else could have put any file there under such a name.
fn hand_over(path: &Path, files: &[&str], uid: Uid, gid: Gid) -> io::Result<()> {
    match DirBuilder::new().mode(0o755).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let directory: OwnedFd = open(path, flags, Mode::empty())?;
    let stat = fstat(&directory)?;
    if stat.st_uid != 0 {
        return Ok(());
    }
    // Where only root could have put them.
    if stat.st_mode & 0o022 == 0 {
        for &name in files {
            match fchownat(&directory, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW) {
                Ok(()) | Err(Errno::ENOENT) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
    // Last, for from here on its new owner may change what is in it.
    fchmod(&directory, Mode::from_bits_truncate(0o755))?;
    Ok(fchown(&directory, Some(uid), Some(gid))?)
}

/// The groups first: without root they can't be changed. Becoming another user takes all capabilities away
/// (capabilities(7)).
fn change_to(uid: Uid, gid: Gid) -> Result<(), PrivilegesError> {
    let step = |step| move |source| PrivilegesError::Change { step, source };
    // A service has none, and could not change them: in the user namespace of `PrivateUsers=` setgroups(2) is denied.
    if !has_no_other_groups(gid) {
        setgroups(&[]).map_err(step("setgroups"))?;
    }
    setresgid(gid, gid, gid).map_err(step("setresgid"))?;
    setresuid(uid, uid, uid).map_err(step("setresuid"))?;
    set_no_new_privs().map_err(step("PR_SET_NO_NEW_PRIVS"))?;
    // Another user's memory image starts as the system's default says.
    set_dumpable(false).map_err(step("PR_SET_DUMPABLE"))
}

/// Whether the process is this user and this group in each respect, has no capability, and can't become root again.
fn confirm(uid: Uid, gid: Gid) -> Result<(), PrivilegesError> {
    let (uids, gids) = (getresuid(), getresgid());
    if !uids.is_ok_and(|ids| [ids.real, ids.effective, ids.saved] == [uid; 3])
        || !gids.is_ok_and(|ids| [ids.real, ids.effective, ids.saved] == [gid; 3])
    {
        return Err(PrivilegesError::NotFinal("its real, effective and saved ids differ"));
    }
    if !has_no_other_groups(gid) {
        return Err(PrivilegesError::NotFinal("it is still in other groups"));
    }
    if !has_no_capabilities() {
        return Err(PrivilegesError::NotFinal("it still has capabilities"));
    }
    let root = (Uid::from_raw(0), Gid::from_raw(0));
    if setresuid(root.0, root.0, root.0).is_ok() || setresgid(root.1, root.1, root.1).is_ok() {
        return Err(PrivilegesError::NotFinal("it could become root again"));
    }
    Ok(())
}

/// Supplementary groups.
fn has_no_other_groups(gid: Gid) -> bool {
    getgroups().is_ok_and(|groups| groups.into_iter().all(|group| group == gid))
}

/// `proc_pid_status(5)`: sets of capabilities as hexadecimal masks. Not the inheritable set, which some releases of systemd
/// leave filled: it gives nothing to a process that can gain no privileges by execve(2).
fn has_no_capabilities() -> bool {
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else { return false };
    let is_empty = |set: &str| {
        let mask = status.lines().find_map(|line| line.strip_prefix(set));
        mask.is_some_and(|mask| u64::from_str_radix(mask.trim(), 16) == Ok(0))
    };
    ["CapPrm:", "CapEff:", "CapAmb:"].into_iter().all(is_empty)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
    use std::path::PathBuf;

    use super::*;

    const AGENT: u32 = 4241;
    const GROUP: u32 = 4242;

    fn hand_over_to_agent(path: &Path) {
        hand_over(path, &THIS_BOOTS_FILES, Uid::from_raw(AGENT), Gid::from_raw(GROUP)).unwrap();
    }

    fn owner(path: &Path) -> (u32, u32) {
        let metadata = path.symlink_metadata().unwrap();
        (metadata.uid(), metadata.gid())
    }

    #[expect(clippy::disallowed_methods, reason = "a file of the test's own")]
    fn put(path: PathBuf) -> PathBuf {
        fs::write(&path, "x").unwrap();
        path
    }

    // Promise: root's agent leaves its files to the agent's user; files of others in the directory stay theirs.
    #[test]
    fn files_of_a_release_that_ran_as_root_are_handed_over() {
        if !Uid::effective().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("missing");
        hand_over_to_agent(&missing);
        assert_eq!((owner(&missing), missing.metadata().unwrap().mode() & 0o7777), ((AGENT, GROUP), 0o755));

        let old = dir.path().join("old");
        fs::create_dir(&old).unwrap();
        let (token, foreign) = (put(old.join("token.json")), put(old.join("in-flight")));
        fs::set_permissions(&token, Permissions::from_mode(0o640)).unwrap();
        let elsewhere = put(dir.path().join("elsewhere"));
        symlink(&elsewhere, old.join("ready.json")).unwrap();
        hand_over_to_agent(&old);
        assert_eq!([owner(&old), owner(&token), owner(&old.join("ready.json"))], [(AGENT, GROUP); 3]);
        assert_eq!(token.metadata().unwrap().mode() & 0o7777, 0o640);
        assert_eq!([owner(&foreign), owner(&elsewhere)], [(0, 0); 2]);
    }

    // Promise: nothing is handed over that somebody else could have put there.
    #[test]
    fn files_that_others_may_have_put_there_are_not_handed_over() {
        if !Uid::effective().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        for (name, owner_before, mode, owner_after) in [
            ("open", 0, 0o777, (AGENT, GROUP)),
            ("sticky", 0, 0o1777, (AGENT, GROUP)),
            ("theirs", 4243, 0o755, (4243, 0)),
        ] {
            let path = dir.path().join(name);
            fs::create_dir(&path).unwrap();
            let token = put(path.join("token.json"));
            chown(&path, Some(owner_before), Some(0)).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            hand_over_to_agent(&path);
            assert_eq!((owner(&path), owner(&token)), (owner_after, (0, 0)), "{name}");
        }
        symlink(dir.path().join("open"), dir.path().join("link")).unwrap();
        let link = dir.path().join("link");
        assert!(hand_over(&link, &THIS_BOOTS_FILES, Uid::from_raw(AGENT), Gid::from_raw(GROUP)).is_err());
    }

    // Promise: that root was not given up does not go unnoticed.
    #[test]
    fn a_process_that_is_still_root_is_noticed() {
        if !Uid::effective().is_root() {
            return;
        }
        assert!(confirm(Uid::from_raw(AGENT), Gid::from_raw(GROUP)).is_err());
        assert!(!has_no_capabilities());
    }

    // Promise: under another root than `/`, and for others than root, the caller stays who it is.
    #[test]
    fn other_trees_are_written_by_the_caller() {
        let (dir, before) = (tempfile::tempdir().unwrap(), getresuid().unwrap());
        become_agent(&Paths::under(dir.path())).unwrap();
        assert_eq!(getresuid().unwrap(), before);
        assert_eq!(dir.path().read_dir().unwrap().count(), 0);
    }
}
