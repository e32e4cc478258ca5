//! `backoff.json`: until when no login may be tried, so that later runs do not hammer what this one was told.

use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::exit::Exit;
use crate::retry::part_of;

use super::cache::BootMoment;
use super::files::{self, FileError, Folder, Readers};

pub(super) const NAME: &str = "backoff.json";

/// How long refused credentials are left alone: ten failures in a row lock the account.
pub const AFTER_REFUSAL: Duration = Duration::from_hours(1);

/// How long the timer's runs leave a server alone whose answer could not be accepted: a person has to mend it, and
/// fifty units that log in each minute would use up their address's logins (ten a minute).
pub const AFTER_UNACCEPTABLE: Duration = Duration::from_mins(5);

/// The waits that a run sits out instead of ending. The timer's next run would come up to a minute too late, and somebody
/// else behind the same address would have the place.
#[derive(Debug)]
pub struct Patience {
    /// On the boot clock; none if nothing is sat out.
    until: Option<Duration>,
}

impl Patience {
    /// The longest wait that is sat out.
    const MOST: Duration = Duration::from_secs(90);
    /// From the start of a run on; `TimeoutStartSec=` of the unit allows for it. Then the run ends, and says why.
    const IN_ALL: Duration = Duration::from_mins(10);
    /// Over how long those come back who were told the same.
    const SPREAD: Duration = Duration::from_secs(5);

    /// That of a run of the timer; a person is told at once how long to wait.
    pub fn new(by_timer: bool, now: Duration) -> Self {
        Self { until: by_timer.then(|| now + Self::IN_ALL) }
    }

    /// How long to sleep before asking again, where the server wants a wait of so much; none if the run is to end.
    pub fn pause(&self, wait: Duration, now: Duration) -> Option<Duration> {
        (wait <= Self::MOST && now + wait <= self.until?).then(|| wait + part_of(Self::SPREAD))
    }
}

/// Until when (on the boot clock of one boot) no login may be tried, and why.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Backoff {
    version: u32,
    boot_id: String,
    until_boottime_s: u64,
    code: u8,
    /// Why, for people.
    pub reason: String,
    /// Which `device.conf` it is about: another one may be tried at once.
    device_conf: String,
}

impl Backoff {
    /// For `wait` from `now` on.
    pub fn new(now: &BootMoment, wait: Duration, exit: Exit, reason: String, device_conf: String) -> Self {
        // Rounded up: a second early is a call that the server asked not to get.
        let until = (now.since_boot + wait).as_secs() + 1;
        Self {
            version: 1,
            boot_id: now.boot_id.clone(),
            until_boottime_s: until,
            code: exit.code(),
            reason,
            device_conf,
        }
    }

    /// The wait that is in force now for this `device.conf`, if one is.
    pub fn in_force(folder: &Path, now: &BootMoment, device_conf: &str) -> Option<Self> {
        files::read::<Self>(folder, NAME).filter(|backoff| {
            backoff.version == 1
                && backoff.boot_id == now.boot_id
                && backoff.device_conf == device_conf
                && !backoff.left(now).is_zero()
        })
    }

    /// How long it still lasts.
    pub fn left(&self, now: &BootMoment) -> Duration {
        Duration::from_secs(self.until_boottime_s).saturating_sub(now.since_boot)
    }

    /// How the run that was told so ended.
    pub fn exit(&self) -> Exit {
        [Exit::Refused, Exit::Protocol].into_iter().find(|exit| exit.code() == self.code).unwrap_or(Exit::Later)
    }

    /// Writes the file.
    ///
    /// # Errors
    /// The I/O error.
    pub fn write(&self, folder: &Folder) -> Result<(), FileError> {
        folder.write(NAME, Readers::Agent, self)
    }

    /// Takes the file away.
    ///
    /// # Errors
    /// The I/O error.
    pub fn clear(folder: &Folder) -> Result<(), FileError> {
        folder.remove(NAME)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use std::os::unix::fs::PermissionsExt;

    use crate::device_conf::ConfFile;
    use crate::private_file::Lifetime;

    use super::*;

    // Promise: a run of the timer ends in time, however short the waits are that it is asked for; a person's at once.
    #[test]
    fn patience_ends() {
        let (patience, second) = (Patience::new(true, Duration::ZERO), Duration::from_secs(1));
        // Each try may take as long as its own deadline.
        let tries = (0..100)
            .map(|number| number * Duration::from_mins(1))
            .take_while(|&now| patience.pause(second, now).is_some());
        assert_eq!(tries.count(), 10);
        let pause = patience.pause(second, Duration::ZERO).unwrap();
        assert!((second..=second + Patience::SPREAD).contains(&pause), "{pause:?}");
        assert_eq!(patience.pause(Duration::from_secs(91), Duration::ZERO), None);
        assert_eq!(Patience::new(false, Duration::ZERO).pause(second, Duration::ZERO), None);
    }

    // Promise: a wait holds for its boot, its time and its device.conf, and for nothing else.
    #[test]
    #[expect(clippy::disallowed_methods, reason = "a file of the test's own")]
    fn holds_only_for_what_it_is_about() {
        let dir = tempfile::tempdir().unwrap();
        let conf = dir.path().join("device.conf");
        fs::write(&conf, "one").unwrap();
        fs::set_permissions(&conf, fs::Permissions::from_mode(0o600)).unwrap();
        let fingerprint = |conf: &Path| ConfFile::open(conf).unwrap().fingerprint().to_owned();
        let at = |boot: &str, s| BootMoment { boot_id: boot.into(), since_boot: Duration::from_secs(s) };
        let backoff = Backoff::new(&at("b1", 100), AFTER_REFUSAL, Exit::Refused, "no".into(), fingerprint(&conf));
        backoff.write(&Folder::open(dir.path(), None, Lifetime::ThisBoot).unwrap()).unwrap();
        let in_force = |moment| Backoff::in_force(dir.path(), &moment, &fingerprint(&conf)).is_some();
        assert!(in_force(at("b1", 100)) && in_force(at("b1", 3700)));
        assert!(!in_force(at("b1", 3701)) && !in_force(at("b2", 100)));
        fs::write(&conf, "two!").unwrap();
        assert!(!in_force(at("b1", 100)));
    }

    // Promise: a later run ends as the one did that was told to wait.
    #[test]
    fn the_exit_code_is_kept() {
        let now = BootMoment { boot_id: "b".into(), since_boot: Duration::ZERO };
        for (told, then) in [
            (Exit::Refused, Exit::Refused),
            (Exit::Protocol, Exit::Protocol),
            (Exit::Later, Exit::Later),
            (Exit::Internal, Exit::Later),
        ] {
            assert_eq!(Backoff::new(&now, AFTER_REFUSAL, told, String::new(), String::new()).exit(), then);
        }
    }

    // Promise: the file is gone once the unit is ready.
    #[test]
    fn is_cleared() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, now) = (
            Folder::open(dir.path(), None, Lifetime::ThisBoot).unwrap(),
            BootMoment { boot_id: "b".into(), since_boot: Duration::ZERO },
        );
        let backoff = Backoff::new(&now, AFTER_REFUSAL, Exit::Refused, String::new(), String::new());
        backoff.write(&folder).unwrap();
        assert!(Backoff::in_force(dir.path(), &now, "").is_some());
        Backoff::clear(&folder).unwrap();
        assert!(!dir.path().join(NAME).exists());
    }
}
