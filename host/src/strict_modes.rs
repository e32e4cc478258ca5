//! Strict modes: as root, refuses to read or write through a path that another user could redirect meanwhile.
//!
//! The rule is that of sshd (`StrictModes`, `sshd_config(5)`), for every component of a path: it must belong to root or to the user
//! who called sudo, and nobody else may be able to write to it. A directory with the sticky bit is accepted: users can't rename or
//! remove other users' files in it.

use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};

use azaion_agent::common::private_file::kind_of;
use nix::sys::stat::{FileStat, SFlag};
use nix::unistd::{Gid, Group, Uid, User, geteuid};
use rustix::fs::getxattr;

/// Error: another user can change a component of a path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{} {why}, so another file could replace it during this run; {}, or use --no-strict-modes",
    component.display(),
    remedy(*why, component)
)]
pub struct UnsafePath {
    component: PathBuf,
    why: Why,
}

/// Who can change a component of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum Why {
    #[error("belongs to the user with the id {0}")]
    Owner(u32),
    #[error("is writable by every user")]
    Everybody,
    #[error("is writable by the group with the id {0}")]
    Group(u32),
    #[error("is writable by others through its access control list")]
    AccessList,
}

fn remedy(why: Why, component: &Path) -> String {
    let component = component.display();
    match why {
        Why::Owner(_) => "move it to a directory that belongs to root, or run this with sudo as that user".to_owned(),
        Why::Everybody | Why::Group(_) => format!("chmod go-w {component}"),
        Why::AccessList => format!("setfacl --remove-all {component}"),
    }
}

static IS_DISABLED: AtomicBool = AtomicBool::new(false);

/// Disables strict modes for this process (`--no-strict-modes`).
pub(crate) fn disable() {
    IS_DISABLED.store(true, Ordering::Relaxed);
}

/// Returns whether paths are validated. Without root they need not be: redirecting the writes of an unprivileged user gains nothing.
pub(crate) fn are_on() -> bool {
    !IS_DISABLED.load(Ordering::Relaxed) && geteuid().is_root()
}

/// Returns whether a user is the caller, or the user who became root with sudo.
pub(crate) fn is_caller(uid: u32) -> bool {
    let caller = geteuid();
    uid == caller.as_raw() || caller.is_root() && TRUSTED.uid == Some(Uid::from_raw(uid))
}

/// Validates one component, which is open as `descriptor`. Accepts every device file.
///
/// # Errors
/// Another user can change the component.
pub(crate) fn validate(stat: &FileStat, descriptor: impl AsFd, component: &Path) -> Result<(), UnsafePath> {
    if !are_on() {
        return Ok(());
    }
    let has_acl = || {
        let opened = format!("/proc/self/fd/{}", descriptor.as_fd().as_raw_fd());
        let mut empty: [u8; 0] = [];
        getxattr(opened.as_str(), "system.posix_acl_access", &mut empty).is_ok()
    };
    TRUSTED.validate(stat, has_acl).map_err(|why| UnsafePath { component: component.to_owned(), why })
}

static TRUSTED: LazyLock<Trusted> = LazyLock::new(|| {
    let uid = std::env::var("SUDO_UID").ok().and_then(|uid| uid.parse().ok()).map(Uid::from_raw);
    // An account that is not in /etc/passwd (LDAP) still has a user id.
    Trusted { uid, user: uid.and_then(|uid| User::from_uid(uid).ok().flatten()) }
});

/// The user who may change the components of a path, besides root.
#[derive(Debug)]
struct Trusted {
    uid: Option<Uid>,
    user: Option<User>,
}

impl Trusted {
    fn validate(&self, stat: &FileStat, has_acl: impl FnOnce() -> bool) -> Result<(), Why> {
        let kind = kind_of(stat);
        // Another user's pipe delivers what that user writes. Only root can create device files.
        if [SFlag::S_IFCHR, SFlag::S_IFBLK].contains(&kind) {
            return Ok(());
        }
        if stat.st_uid != 0 && self.uid != Some(Uid::from_raw(stat.st_uid)) {
            return Err(Why::Owner(stat.st_uid));
        }
        let is_sticky = kind == SFlag::S_IFDIR && stat.st_mode & 0o1000 != 0;
        // The mode of a symlink has no effect.
        if kind == SFlag::S_IFLNK || is_sticky {
            return Ok(());
        }
        if stat.st_mode & 0o002 != 0 {
            return Err(Why::Everybody);
        }
        if stat.st_mode & 0o020 == 0 {
            return Ok(());
        }
        if !self.is_private(Gid::from_raw(stat.st_gid)) {
            return Err(Why::Group(stat.st_gid));
        }
        // With an access control list, the group bits are its mask: the most that any named user or group may do.
        if has_acl() { Err(Why::AccessList) } else { Ok(()) }
    }

    /// Returns whether a group has only trusted members: root's group, or the user's private group. With a umask of 002, the default
    /// of Debian and Ubuntu, all files are writable for the latter.
    fn is_private(&self, gid: Gid) -> bool {
        let is_own = |group: &Group| match &self.user {
            Some(user) => user.gid == gid && user.name == group.name,
            None => false,
        };
        let is_trusted = |name: &String| name == "root" || self.user.as_ref().is_some_and(|user| user.name == *name);
        let group = Group::from_gid(gid).ok().flatten();
        group.is_some_and(|group| (gid.as_raw() == 0 || is_own(&group)) && group.mem.iter().all(is_trusted))
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::stat::lstat;

    use super::*;

    const NOBODY: u32 = 65_534;

    fn stat(kind: SFlag, mode: u32, uid: u32, gid: u32) -> FileStat {
        let mut stat = lstat("/").unwrap();
        (stat.st_mode, stat.st_uid, stat.st_gid) = (kind.bits() | mode, uid, gid);
        stat
    }

    // Promise: a component that another user owns or can write to is refused. The sticky bit makes the mode of a directory safe, not its
    // owner. Of a symlink only the owner counts.
    #[test]
    fn components_that_others_can_change_are_refused() {
        let nobody = User::from_uid(Uid::from_raw(NOBODY)).unwrap().unwrap();
        let (without_sudo, with_sudo) =
            (Trusted { uid: None, user: None }, Trusted { uid: Some(nobody.uid), user: Some(nobody) });
        let (dir, file, link) = (SFlag::S_IFDIR, SFlag::S_IFREG, SFlag::S_IFLNK);
        for (stat, as_root, as_sudo) in [
            (stat(dir, 0o755, 0, 0), None, None),
            (stat(dir, 0o755, 0, NOBODY), None, None),
            (stat(dir, 0o755, NOBODY, 0), Some(Why::Owner(NOBODY)), None),
            (stat(dir, 0o1777, NOBODY, 0), Some(Why::Owner(NOBODY)), None),
            (stat(dir, 0o755, 12_345, 0), Some(Why::Owner(12_345)), Some(Why::Owner(12_345))),
            (stat(dir, 0o1777, 0, 0), None, None),
            (stat(dir, 0o1775, 0, NOBODY), None, None),
            (stat(dir, 0o757, 0, 0), Some(Why::Everybody), Some(Why::Everybody)),
            (stat(dir, 0o775, 0, NOBODY), Some(Why::Group(NOBODY)), Some(Why::Group(NOBODY))),
            (stat(dir, 0o775, 0, 0), None, None),
            (stat(dir, 0o775, 0, 54_321), Some(Why::Group(54_321)), Some(Why::Group(54_321))),
            (stat(file, 0o644, 0, 0), None, None),
            (stat(file, 0o644, NOBODY, 0), Some(Why::Owner(NOBODY)), None),
            (stat(file, 0o1666, 0, 0), Some(Why::Everybody), Some(Why::Everybody)),
            (stat(link, 0o777, 0, 0), None, None),
            (stat(link, 0o777, NOBODY, 0), Some(Why::Owner(NOBODY)), None),
            (stat(SFlag::S_IFIFO, 0o600, NOBODY, 0), Some(Why::Owner(NOBODY)), None),
            (stat(SFlag::S_IFIFO, 0o666, 0, 0), Some(Why::Everybody), Some(Why::Everybody)),
            (stat(SFlag::S_IFCHR, 0o666, NOBODY, 0), None, None),
        ] {
            let text = format!("{:o} {}:{}", stat.st_mode, stat.st_uid, stat.st_gid);
            assert_eq!(without_sudo.validate(&stat, || false).err(), as_root, "{text}");
            assert_eq!(with_sudo.validate(&stat, || false).err(), as_sudo, "{text}, sudo");
        }
        let group = stat(dir, 0o775, 0, 0);
        assert_eq!(without_sudo.validate(&group, || true).err(), Some(Why::AccessList));
    }

    // Promise: the message names the component, the reason and the remedy.
    #[test]
    fn messages_name_the_remedy() {
        let unsafe_path = |why| UnsafePath { component: "/srv/images".into(), why }.to_string();
        for (why, part) in [
            (
                Why::Owner(7),
                "the id 7, so another file could replace it during this run; move it to a directory that belongs to root, \
                 or run this with sudo as that user, or use",
            ),
            (
                Why::Everybody,
                "by every user, so another file could replace it during this run; chmod go-w /srv/images, or",
            ),
            (Why::AccessList, "setfacl --remove-all /srv/images, or use --no-strict-modes"),
        ] {
            let text = unsafe_path(why);
            assert!(text.starts_with("/srv/images ") && text.contains(part), "{text}");
        }
    }
}
