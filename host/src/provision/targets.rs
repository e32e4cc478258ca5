//! The targets of one device: what is in them, and one `device.conf` written into all of them, or into none.

use std::cell::Cell;
use std::time::Duration;

use azaion_agent::api::fault::chain;
use azaion_agent::common::clock::Timestamp;
use azaion_agent::common::device_conf::DeviceConf;
use azaion_agent::common::exit::Exit;
use secrecy::{ExposeSecret, SecretString};

use crate::error::{Error, Result, failure};
use crate::interrupt;
use crate::provision::intent::{asked_at, filter_intent, is_intent};
use crate::target::confirmation::is_confirmed;
use crate::target::{Found, Owner, Target};

/// How long after the intent its answer is written at most, give or take.
const LONGEST_ANSWER: Duration = Duration::from_hours(1);

/// All targets of a device.
pub(crate) struct Targets<'a> {
    list: Vec<TargetState<'a>>,
    owner: Owner,
}

/// A target with what was in it before.
struct TargetState<'a> {
    target: &'a dyn Target,
    before: Option<Found>,
    content: Content,
    is_written: Cell<bool>,
}

/// Whose `device.conf` is in a target.
pub(crate) enum Content {
    /// None, or one that may be replaced.
    Free,
    /// This device's, with a password that is used again.
    Ours(DeviceConf),
    /// This device's, but this tool can't have written it, so that its password is not used.
    Doubtful(DeviceConf),
    /// Nobody knows; it may be replaced.
    Unreadable,
}

impl<'a> Targets<'a> {
    /// Looks into all targets; `classify` says whose a `device.conf` is, or why the target is refused.
    pub(crate) fn read(
        targets: &'a [Box<dyn Target>],
        owner: Owner,
        classify: impl Fn(&dyn Target, &Found) -> Result<Content>,
    ) -> Result<Self> {
        let read_conf = |target: &'a dyn Target| {
            target.may_write(owner)?;
            target.remove_leftovers()?;
            let before = target.read_conf()?;
            let content = match &before {
                Some(found) if !is_intent(&found.bytes) => classify(target, found)?,
                _ => Content::Free,
            };
            Ok(TargetState { target, before, content, is_written: Cell::new(false) })
        };
        Ok(Self { list: targets.iter().map(|target| read_conf(target.as_ref())).collect::<Result<_>>()?, owner })
    }

    /// Tells of identities that were asked for and have not been written.
    pub(crate) fn report_intents(&self) {
        for place in &self.list {
            filter_intent(place.target, place.before.as_ref());
        }
    }

    /// The same, but for those whose answer is in another of the targets: a run was killed between two of them.
    pub(crate) fn report_lost_intents(&self) {
        let is_answer = |conf: &DeviceConf, asked: Timestamp| {
            conf.provisioned_at.is_some_and(|at| at >= asked && at.since(asked) <= LONGEST_ANSWER)
        };
        for place in &self.list {
            let asked = place.before.as_ref().and_then(|found| asked_at(&found.bytes));
            if !asked.is_some_and(|asked| self.ours().any(|conf| is_answer(conf, asked))) {
                filter_intent(place.target, place.before.as_ref());
            }
        }
    }

    /// The files of this device whose password is used again.
    pub(crate) fn ours(&self) -> impl Iterator<Item = &DeviceConf> {
        self.list.iter().filter_map(TargetState::ours)
    }

    /// The files of this device whose password is not used.
    pub(crate) fn doubtful(&self) -> impl Iterator<Item = &DeviceConf> {
        self.list.iter().filter_map(|place| match &place.content {
            Content::Doubtful(conf) => Some(conf),
            _ => None,
        })
    }

    /// Whether a target has a file that can't be read.
    pub(crate) fn have_unreadable(&self) -> bool {
        self.list.iter().any(|place| matches!(place.content, Content::Unreadable))
    }

    /// The passwords that are used again, each once.
    pub(crate) fn passwords(&self) -> Vec<&SecretString> {
        let mut known: Vec<&SecretString> = Vec::new();
        for conf in self.ours() {
            if !known.iter().any(|other| same(other, &conf.password)) {
                known.push(&conf.password);
            }
        }
        known
    }

    /// The module that the device is for: the one that is `given`, else what the targets say already.
    pub(crate) fn module_serial<'s>(&'s self, given: Option<&'s str>) -> Option<&'s str> {
        given.or_else(|| self.module_serials().next())
    }

    fn module_serials(&self) -> impl Iterator<Item = &str> {
        self.ours().filter_map(|conf| conf.module_serial.as_deref())
    }

    /// Which module the device is for can't be guessed where the targets disagree. That it is for another one from now
    /// on may be meant, for boards are replaced; or a mix-up.
    pub(crate) fn check_modules(&self, given: Option<&str>) -> Result<()> {
        let Some(now) = self.module_serial(given) else { return Ok(()) };
        let Some(before) = self.module_serials().find(|module| *module != now) else { return Ok(()) };
        let whose = self.ours().next().map(DeviceConf::whose).unwrap_or_default();
        if given.is_some() {
            log::warn!("{whose} was for the module {before} and is for {now} now; on {before} it is no longer");
            return Ok(());
        }
        let message =
            format!("one target says that {whose} is for the module {now}, another {before}; give --module-serial");
        Err(failure(Exit::Data, message))
    }

    /// Whether all targets hold this file, marked as one of which the API takes the password.
    pub(crate) fn are_confirmed(&self, conf: &DeviceConf) -> Result<bool> {
        for place in &self.list {
            let is_confirmed = place.before.as_ref().is_some_and(|found| is_confirmed(&found.bytes));
            if !is_confirmed || !self.holds(place, conf)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Writes the file into all targets, or into none. What holds it already is left alone.
    pub(crate) fn write(&self, conf: &DeviceConf) -> Result<()> {
        let text = conf.render();
        for place in &self.list {
            if !self.holds(place, conf)? {
                self.put(place, &text).map_err(|error| self.restore(error))?;
            }
        }
        Ok(())
    }

    /// Writes a text into all targets, or into none.
    pub(crate) fn write_text(&self, text: &SecretString) -> Result<()> {
        self.list.iter().try_for_each(|place| self.put(place, text)).map_err(|error| self.restore(error))
    }

    /// Writes a file into as many targets as can be: the first failure, if there is one, and whether one of them has it.
    pub(crate) fn write_where_possible(&self, conf: &DeviceConf) -> (Result<()>, bool) {
        let text = conf.render();
        let done: Vec<Result<()>> = self.list.iter().map(|place| self.put(place, &text)).collect();
        // A write may fail when the file is there, for its checksum or the folder's sync.
        let is_there = |place: &TargetState<'_>| {
            let found = place.target.read_conf().ok().flatten().and_then(|found| found.conf(place.target.path()).ok());
            found.is_some_and(|found| found.email == conf.email && same(&found.password, &conf.password))
        };
        let is_written = done.iter().zip(&self.list).any(|(result, place)| result.is_ok() || is_there(place));
        (done.into_iter().collect(), is_written)
    }

    fn put(&self, place: &TargetState<'_>, text: &SecretString) -> Result<()> {
        place.is_written.set(true);
        Ok(place.target.write(text, self.owner)?)
    }

    /// Puts back what was in the targets that were written to; the error that led to it, with what went wrong here.
    pub(crate) fn restore(&self, mut error: Error) -> Error {
        for place in self.list.iter().filter(|place| place.is_written.get()) {
            if let Err(other) = interrupt::uninterrupted(|| place.target.restore(place.before.as_ref())) {
                let path = place.target.path().display();
                error = error.context(format!("{path} could not be put back as it was ({})", chain(&other)));
            }
        }
        error
    }

    fn holds(&self, place: &TargetState<'_>, conf: &DeviceConf) -> Result<bool> {
        let (Some(found), Some(ours)) = (&place.before, place.ours()) else { return Ok(false) };
        let same = same(&ours.password, &conf.password)
            && ours.api_url == conf.api_url
            && ours.serial == conf.serial
            && ours.module_serial == conf.module_serial;
        Ok(same && place.target.is_in_order(found, self.owner)?)
    }
}

impl TargetState<'_> {
    fn ours(&self) -> Option<&DeviceConf> {
        match &self.content {
            Content::Ours(conf) => Some(conf),
            _ => None,
        }
    }
}

fn same(one: &SecretString, other: &SecretString) -> bool {
    one.expose_secret() == other.expose_secret()
}
