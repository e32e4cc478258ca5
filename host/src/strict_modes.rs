//! Strict modes: as root, nothing is read or written through a path that somebody else could turn elsewhere meanwhile.
//!
//! The rule is that of sshd (`StrictModes`, `sshd_config(5)`), for every component of a path: it belongs to root or to the user who
//! called sudo, and nobody else may change it. In a directory with the sticky bit nobody may rename or remove what is not theirs.

use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};

use azaion_agent::common::private_file::kind_of;
use nix::sys::stat::{FileStat, SFlag};
use nix::unistd::{Gid, Group, Uid, User, geteuid};
use rustix::fs::getxattr;

/// Why a path is not used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{} {why}, so that another file could be put there while this runs; {}, or give --no-strict-modes",
    component.display(),
    remedy(*why, component)
)]
pub struct UnsafePath {
    component: PathBuf,
    why: Why,
}

/// IdentitySource can change a component of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum Why {
    #[error("belongs to the user with the id {0}")]
    Owner(u32),
    #[error("can be changed by everybody")]
    Everybody,
    #[error("can be changed by the group with the id {0}")]
    Group(u32),
    #[error("can be changed by others through its access control list")]
    AccessList,
}

fn remedy(why: Why, component: &Path) -> String {
    let component = component.display();
    match why {
        Why::Owner(_) => "move it to a directory of root's, or run this with sudo as that user".to_owned(),
        Why::Everybody | Why::Group(_) => format!("chmod go-w {component}"),
        Why::AccessList => format!("setfacl --remove-all {component}"),
    }
}

static SWITCHED_OFF: AtomicBool = AtomicBool::new(false);

/// `--no-strict-modes`, for this process.
pub(crate) fn switch_off() {
    SWITCHED_OFF.store(true, Ordering::Relaxed);
}

/// Whether paths are validated: of others than root they need not be, for nobody gains anything by what those write.
pub(crate) fn are_on() -> bool {
    !SWITCHED_OFF.load(Ordering::Relaxed) && geteuid().is_root()
}

/// Whether a user is the caller, or the one who became root by sudo.
pub(crate) fn is_caller(uid: u32) -> bool {
    let caller = geteuid();
    uid == caller.as_raw() || caller.is_root() && TRUSTED.uid == Some(Uid::from_raw(uid))
}

/// Validates one component, which is open as `descriptor`; of devices nothing is said.
///
/// # Errors
/// Somebody else can change it.
pub(crate) fn validate(stat: &FileStat, descriptor: impl AsFd, component: &Path) -> Result<(), UnsafePath> {
    if !are_on() {
        return Ok(());
    }
    let has_list = || {
        let opened = format!("/proc/self/fd/{}", descriptor.as_fd().as_raw_fd());
        let mut nothing: [u8; 0] = [];
        getxattr(opened.as_str(), "system.posix_acl_access", &mut nothing).is_ok()
    };
    TRUSTED.validate(stat, has_list).map_err(|why| UnsafePath { component: component.to_owned(), why })
}

static TRUSTED: LazyLock<Trusted> = LazyLock::new(|| {
    let uid = std::env::var("SUDO_UID").ok().and_then(|uid| uid.parse().ok()).map(Uid::from_raw);
    // An account that is not in /etc/passwd (LDAP) has a number all the same.
    Trusted { uid, user: uid.and_then(|uid| User::from_uid(uid).ok().flatten()) }
});

/// IdentitySource may change what is on the way, besides root.
#[derive(Debug)]
struct Trusted {
    uid: Option<Uid>,
    user: Option<User>,
}

impl Trusted {
    fn validate(&self, stat: &FileStat, has_list: impl FnOnce() -> bool) -> Result<(), Why> {
        let kind = kind_of(stat);
        // A pipe that somebody else holds says what that user likes. Devices are made by root alone.
        if [SFlag::S_IFCHR, SFlag::S_IFBLK].contains(&kind) {
            return Ok(());
        }
        if stat.st_uid != 0 && self.uid != Some(Uid::from_raw(stat.st_uid)) {
            return Err(Why::Owner(stat.st_uid));
        }
        let is_sticky = kind == SFlag::S_IFDIR && stat.st_mode & 0o1000 != 0;
        // A symlink can't be changed, whatever its mode.
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
        // With a list, these bits are the most that any named user or group has.
        if has_list() { Err(Why::AccessList) } else { Ok(()) }
    }

    /// Whether a group has nobody in it but those who are trusted: root's, and the user's own where each user has one (with a
    /// umask of 002, as Debian and Ubuntu have it, everything is writable for that).
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

    // Promise: a component that another user owns or can write to is refused. The sticky bit of a directory makes its mode safe, not
    // its owner. A symlink counts by its owner.
    #[test]
    fn who_can_change_it() {
        let nobody = User::from_uid(Uid::from_raw(NOBODY)).unwrap().unwrap();
        let (root, sudo) = (Trusted { uid: None, user: None }, Trusted { uid: Some(nobody.uid), user: Some(nobody) });
        let (dir, file, link) = (SFlag::S_IFDIR, SFlag::S_IFREG, SFlag::S_IFLNK);
        for (what, alone, with_sudo) in [
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
            let text = format!("{:o} {}:{}", what.st_mode, what.st_uid, what.st_gid);
            assert_eq!(root.validate(&what, || false).err(), alone, "{text}");
            assert_eq!(sudo.validate(&what, || false).err(), with_sudo, "{text}, sudo");
        }
        let group = stat(dir, 0o775, 0, 0);
        assert_eq!(root.validate(&group, || true).err(), Some(Why::AccessList));
    }

    // Promise: the message names the component, the reason and what to do.
    #[test]
    fn what_to_do() {
        let unsafe_path = |why| UnsafePath { component: "/srv/images".into(), why }.to_string();
        for (why, words) in [
            (
                Why::Owner(7),
                "the id 7, so that another file could be put there while this runs; move it to a directory of root's, or run this with sudo as that user, or give",
            ),
            (
                Why::Everybody,
                "by everybody, so that another file could be put there while this runs; chmod go-w /srv/images, or",
            ),
            (Why::AccessList, "setfacl --remove-all /srv/images, or give --no-strict-modes"),
        ] {
            let text = unsafe_path(why);
            assert!(text.starts_with("/srv/images ") && text.contains(words), "{text}");
        }
    }
}
