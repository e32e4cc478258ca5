//! Gives up root: only root can open `device.conf`, and once it is open, nothing else needs root.
//!
//! The service starts as root, with the capabilities for this change only (`ExecStart=!` in `azaion-agent.service`).
//! `azaion-agent token` and `status` in an admin's shell start as root, too. After [`become_agent`] the process is the
//! user [`USER`], so it reads policy, cache and answers of the API without privileges that could be misused. All files
//! of the agent belong to that user, even if root started the agent.

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

/// The agent's user, which `azaion.sysusers` creates.
pub const USER: &str = "azaion-agent";

/// The error of giving up root.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's message says it")]
pub enum PrivilegesError {
    #[error("cannot look up the user {USER}")]
    Lookup(#[source] Errno),
    #[error("the user {USER} or its group has the id 0; delete it, and run systemd-sysusers azaion.conf")]
    IsRoot,
    #[error("cannot become the user {USER}: {step}")]
    Change {
        step: &'static str,
        #[source]
        source: Errno,
    },
    #[error("cannot become the user {USER} for good: {0}")]
    NotFinal(&'static str),
}

/// Changes a process of root to the user [`USER`] for good.
///
/// A process of another user is not changed; nor is one of root if the files do not lie below `/` (a test, the tree of
/// an image), or if the user does not exist.
///
/// Before the change, root gives the agent's directories and files to that user: those of a release that ran as root,
/// and `/run/azaion` if the service has not run since the boot. In the service this is denied, but systemd has done it
/// already.
///
/// # Errors
/// The step that failed. The process may have lost some of its privileges and must exit.
pub fn become_agent(paths: &Paths) -> Result<(), PrivilegesError> {
    if !Uid::effective().is_root() || paths.under_root(Path::new("/")) != Path::new("/") {
        return Ok(());
    }
    let Some((uid, gid)) = agent()? else {
        log::warn!("the user {USER} does not exist, so the agent stays root; run systemd-sysusers azaion.conf");
        return Ok(());
    };
    for (directory, files) in [(paths.run_dir(), &THIS_BOOTS_FILES[..]), (paths.state_dir(), &STATE_FILES[..])] {
        if let Err(error) = hand_over(&directory, files, uid, gid) {
            // Info only: if it matters, writing the file fails with an error.
            log::info!("cannot give {} to the user {USER}: {error}", directory.display());
        }
    }
    change_to(uid, gid)?;
    confirm(uid, gid)
}

/// Returns the ids of the agent's user and of the group that may read the token.
fn agent() -> Result<Option<(Uid, Gid)>, PrivilegesError> {
    let Some(user) = User::from_name(USER).map_err(PrivilegesError::Lookup)? else { return Ok(None) };
    let group = Group::from_name(GROUP).map_err(PrivilegesError::Lookup)?;
    let gid = group.map_or(user.gid, |group| group.gid);
    if user.uid.is_root() || gid.as_raw() == 0 {
        return Err(PrivilegesError::IsRoot);
    }
    Ok(Some((user.uid, gid)))
}

/// Gives a directory of root to the agent's user, with the files in it that an agent as root has written.
///
/// A missing directory is created. A directory of another user is not changed, since that user could have put any file
/// there under such a name.
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
    // Only if no other user could have put the files there.
    if stat.st_mode & 0o022 == 0 {
        for &name in files {
            match fchownat(&directory, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW) {
                Ok(()) | Err(Errno::ENOENT) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
    // Last, because the new owner may change the content from here on.
    fchmod(&directory, Mode::from_bits_truncate(0o755))?;
    Ok(fchown(&directory, Some(uid), Some(gid))?)
}

/// Changes groups, group and user of the process, in this order, since only root can change groups. The change of user
/// removes all capabilities (capabilities(7)).
fn change_to(uid: Uid, gid: Gid) -> Result<(), PrivilegesError> {
    let step = |step| move |source| PrivilegesError::Change { step, source };
    // A service has no other groups, and setgroups(2) is denied in the user namespace of `PrivateUsers=`.
    if !has_no_other_groups(gid) {
        setgroups(&[]).map_err(step("setgroups"))?;
    }
    setresgid(gid, gid, gid).map_err(step("setresgid"))?;
    setresuid(uid, uid, uid).map_err(step("setresuid"))?;
    set_no_new_privs().map_err(step("PR_SET_NO_NEW_PRIVS"))?;
    // The change of user resets the flag to the default of the system.
    set_dumpable(false).map_err(step("PR_SET_DUMPABLE"))
}

/// Checks that all ids of the process are this user and this group, that it has no capability, and that it can't become
/// root again.
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

/// Returns whether the process has no supplementary group but this one.
fn has_no_other_groups(gid: Gid) -> bool {
    getgroups().is_ok_and(|groups| groups.into_iter().all(|group| group == gid))
}

/// Returns whether all sets of capabilities are empty, but for the inheritable set (hexadecimal masks,
/// `proc_pid_status(5)`).
///
/// Some releases of systemd leave the inheritable set filled. It has no effect in a process that can't gain privileges
/// by execve(2).
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

    // Promise: the agent's files that root wrote are given to the agent's user; files of other programs keep their
    // owner.
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

    // Promise: no file is handed over that another user could have put there.
    #[test]
    fn files_that_other_users_may_have_put_there_are_not_handed_over() {
        if !Uid::effective().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        for (name, owner_before, mode, owner_after) in [
            ("open", 0, 0o777, (AGENT, GROUP)),
            ("sticky", 0, 0o1777, (AGENT, GROUP)),
            ("of another user", 4243, 0o755, (4243, 0)),
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

    // Promise: a process that is still root is detected.
    #[test]
    fn a_process_that_is_still_root_is_noticed() {
        if !Uid::effective().is_root() {
            return;
        }
        assert!(confirm(Uid::from_raw(AGENT), Gid::from_raw(GROUP)).is_err());
        assert!(!has_no_capabilities());
    }

    // Promise: below another root than `/`, and for another user than root, the process keeps its user.
    #[test]
    fn the_user_stays_below_another_root() {
        let (dir, before) = (tempfile::tempdir().unwrap(), getresuid().unwrap());
        become_agent(&Paths::under(dir.path())).unwrap();
        assert_eq!(getresuid().unwrap(), before);
        assert_eq!(dir.path().read_dir().unwrap().count(), 0);
    }
}
