//! The targets of one device: reads them, and writes one `device.conf` into all of them or into none.

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

/// Longest time between an intent and its response in `device.conf`, roughly.
const LONGEST_ANSWER: Duration = Duration::from_hours(1);

/// All targets of a device.
pub(crate) struct Targets<'a> {
    states: Vec<TargetState<'a>>,
    owner: Owner,
}

/// A target with its content before this run.
struct TargetState<'a> {
    target: &'a dyn Target,
    before: Option<Found>,
    content: Content,
    is_written: Cell<bool>,
}

/// Classification of a target's `device.conf`.
pub(crate) enum Content {
    /// There is no file, or one that may be replaced.
    Free,
    /// A file of this device, whose password is reused.
    Ours(DeviceConf),
    /// A file of this device that this tool can't have written, so its password is not used.
    Doubtful(DeviceConf),
    /// A file that can't be parsed and may be replaced.
    Unreadable,
}

impl<'a> Targets<'a> {
    /// Reads all targets; `classify` classifies a `device.conf`, or fails if the target is refused.
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
        Ok(Self { states: targets.iter().map(|target| read_conf(target.as_ref())).collect::<Result<_>>()?, owner })
    }

    /// Warns of identities that were requested and not written.
    pub(crate) fn report_intents(&self) {
        for state in &self.states {
            filter_intent(state.target, state.before.as_ref());
        }
    }

    /// Warns like [`Self::report_intents`], except if another target holds the response: a run was killed between two targets.
    pub(crate) fn report_lost_intents(&self) {
        let is_answer = |conf: &DeviceConf, asked: Timestamp| {
            conf.provisioned_at.is_some_and(|at| at >= asked && at.since(asked) <= LONGEST_ANSWER)
        };
        for state in &self.states {
            let asked = state.before.as_ref().and_then(|found| asked_at(&found.bytes));
            if !asked.is_some_and(|asked| self.ours().any(|conf| is_answer(conf, asked))) {
                filter_intent(state.target, state.before.as_ref());
            }
        }
    }

    /// Returns the files of this device whose password is reused.
    pub(crate) fn ours(&self) -> impl Iterator<Item = &DeviceConf> {
        self.states.iter().filter_map(TargetState::ours)
    }

    /// Returns the files of this device whose password is not used.
    pub(crate) fn doubtful(&self) -> impl Iterator<Item = &DeviceConf> {
        self.states.iter().filter_map(|state| match &state.content {
            Content::Doubtful(conf) => Some(conf),
            _ => None,
        })
    }

    /// Returns whether a target has a file that can't be parsed.
    pub(crate) fn have_unreadable(&self) -> bool {
        self.states.iter().any(|state| matches!(state.content, Content::Unreadable))
    }

    /// Returns the passwords that are reused, without duplicates.
    pub(crate) fn passwords(&self) -> Vec<&SecretString> {
        let mut known: Vec<&SecretString> = Vec::new();
        for conf in self.ours() {
            if !known.iter().any(|other| same(other, &conf.password)) {
                known.push(&conf.password);
            }
        }
        known
    }

    /// Returns the serial number of the device's module: the given one, otherwise the one in the targets.
    pub(crate) fn module_serial<'s>(&'s self, given: Option<&'s str>) -> Option<&'s str> {
        given.or_else(|| self.module_serials().next())
    }

    fn module_serials(&self) -> impl Iterator<Item = &str> {
        self.ours().filter_map(|conf| conf.module_serial.as_deref())
    }

    /// Refuses targets with different modules, unless the module is given. Warns if the given module differs from a target: a module may
    /// have been replaced, or mixed up.
    pub(crate) fn check_modules(&self, given: Option<&str>) -> Result<()> {
        let Some(now) = self.module_serial(given) else { return Ok(()) };
        let Some(before) = self.module_serials().find(|module| *module != now) else { return Ok(()) };
        let whose = self.ours().next().map(DeviceConf::whose).unwrap_or_default();
        if given.is_some() {
            log::warn!(
                "{whose} was for the module {before} and is now for {now}; the agent will not use it on {before}"
            );
            return Ok(());
        }
        let message =
            format!("one target says that {whose} is for the module {now}, another {before}; use --module-serial");
        Err(failure(Exit::Data, message))
    }

    /// Returns whether all targets hold this file with the confirmation comment.
    pub(crate) fn are_confirmed(&self, conf: &DeviceConf) -> Result<bool> {
        for state in &self.states {
            let is_confirmed = state.before.as_ref().is_some_and(|found| is_confirmed(&found.bytes));
            if !is_confirmed || !self.holds(state, conf)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Writes the file into all targets or into none; skips targets that already hold it.
    pub(crate) fn write(&self, conf: &DeviceConf) -> Result<()> {
        let text = conf.render();
        for state in &self.states {
            if !self.holds(state, conf)? {
                self.write_into(state, &text).map_err(|error| self.restore(error))?;
            }
        }
        Ok(())
    }

    /// Writes a text into all targets or into none.
    pub(crate) fn write_text(&self, text: &SecretString) -> Result<()> {
        self.states.iter().try_for_each(|state| self.write_into(state, text)).map_err(|error| self.restore(error))
    }

    /// Writes the file into as many targets as possible. Returns the first failure, and whether any target has the file.
    pub(crate) fn write_where_possible(&self, conf: &DeviceConf) -> (Result<()>, bool) {
        let text = conf.render();
        let results: Vec<Result<()>> = self.states.iter().map(|state| self.write_into(state, &text)).collect();
        // A write may fail after the file is written, at its checksum or at the directory's sync.
        let is_there = |state: &TargetState<'_>| {
            let found = state.target.read_conf().ok().flatten().and_then(|found| found.conf(state.target.path()).ok());
            found.is_some_and(|found| found.email == conf.email && same(&found.password, &conf.password))
        };
        let is_written = results.iter().zip(&self.states).any(|(result, state)| result.is_ok() || is_there(state));
        (results.into_iter().collect(), is_written)
    }

    fn write_into(&self, state: &TargetState<'_>, text: &SecretString) -> Result<()> {
        state.is_written.set(true);
        Ok(state.target.write(text, self.owner)?)
    }

    /// Restores the targets that were written. Returns the error that led here, with the failures of restoring.
    pub(crate) fn restore(&self, mut error: Error) -> Error {
        for state in self.states.iter().filter(|state| state.is_written.get()) {
            if let Err(other) = interrupt::uninterrupted(|| state.target.restore(state.before.as_ref())) {
                let path = state.target.path().display();
                error = error.context(format!("{path} could not be restored ({})", chain(&other)));
            }
        }
        error
    }

    /// Returns whether a target already holds this file.
    fn holds(&self, state: &TargetState<'_>, conf: &DeviceConf) -> Result<bool> {
        let (Some(found), Some(ours)) = (&state.before, state.ours()) else { return Ok(false) };
        let is_same = same(&ours.password, &conf.password)
            && ours.api_url == conf.api_url
            && ours.serial == conf.serial
            && ours.module_serial == conf.module_serial;
        Ok(is_same && state.target.is_in_order(found, self.owner)?)
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
