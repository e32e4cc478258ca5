//! The `device.conf` members of an archive that can't be overwritten in place: those that the image builder packed.

use std::fmt;

use azaion_agent::common::device_conf::MODE;

use super::contents::{Archive, Member};
use crate::target::image::slot::{self, Content};
use crate::target::image::slot_image::Slot;

/// Every packed `device.conf` of an archive. Unpacking the archive yields the last one.
pub(in crate::target) struct Packed(Vec<(Member, Content)>);

impl fmt::Debug for Packed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the passwords in it.
        f.debug_list().entries(self.0.iter().map(|(member, _)| member)).finish()
    }
}

/// Bytes that overwrite credentials, and their offset in the archive.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::target) struct Blank {
    pub(in crate::target) start: u64,
    pub(in crate::target) text: Vec<u8>,
}

impl Packed {
    /// Classifies each `device.conf` of an archive. With `is_last_ours`, this program has written the last one.
    pub(in crate::target) fn of(archive: &Archive, is_last_ours: bool) -> Self {
        let own = is_last_ours.then(|| archive.confs.len().saturating_sub(1));
        let classify = |(index, conf): (usize, &super::PackedConf)| {
            let content = match conf.text.get(..=slot::SIZE) {
                // One byte more than fits, so that the reader knows that it is too large.
                Some(start) => Content::Conf(start.to_vec().into()),
                None if Some(index) == own => slot::classify_own(&conf.text),
                None => slot::classify(&conf.text),
            };
            (conf.member, content)
        };
        Self(archive.confs.iter().enumerate().map(classify).collect())
    }

    /// Returns the last `device.conf` as a slot that can't be overwritten in place. `is_in_order` says whether its directory has the
    /// required mode and owner.
    pub(in crate::target::image) fn slot(&self, is_in_order: bool) -> Option<Slot> {
        let (member, content) = self.0.last()?;
        Some(Slot {
            content: content.clone(),
            place: None,
            is_ours: false,
            is_in_order: is_in_order && (member.mode, member.uid, member.gid) == (MODE, 0, 0),
            size: usize::try_from(member.size).unwrap_or(slot::SIZE),
            mode: member.mode,
            uid: member.uid,
            gid: member.gid,
        })
    }

    /// Returns whether an overridden `device.conf` contains credentials: any but the last one.
    pub(in crate::target) fn has_overridden(&self) -> bool {
        self.0.split_last().is_some_and(|(_, overridden)| overridden.iter().any(has_credentials))
    }

    /// Returns the bytes that overwrite all credentials, in the order of the archive.
    pub(in crate::target) fn blanks(&self) -> Vec<Blank> {
        let blank = |(member, _): &(Member, Content)| {
            let mut text = slot::blank();
            text.resize(usize::try_from(member.size).unwrap_or_default(), b'\n');
            Blank { start: member.content, text }
        };
        self.0.iter().filter(|conf| has_credentials(conf)).map(blank).collect()
    }
}

fn has_credentials((_, content): &(Member, Content)) -> bool {
    *content != Content::Blank
}

impl Blank {
    /// Overwrites the credentials in `bytes`, a part of the archive that starts at the offset `start`.
    pub(in crate::target) fn apply_to(&self, bytes: &mut [u8], start: u64) {
        for (offset, &blank) in (self.start..).zip(&self.text) {
            let index = offset.checked_sub(start).and_then(|index| usize::try_from(index).ok());
            if let Some(byte) = index.and_then(|index| bytes.get_mut(index)) {
                *byte = blank;
            }
        }
    }
}
