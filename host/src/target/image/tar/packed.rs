//! Each `device.conf` that lies in an archive among the members of the image builder.

use std::fmt;

use azaion_agent::common::device_conf::MODE;

use super::contents::{Archive, Member};
use crate::target::image::slot::{self, Content};
use crate::target::image::slot_image::Slot;

/// Every `device.conf` of an archive, the last of which is unpacked.
pub(in crate::target) struct Packed(Vec<(Member, Content)>);

impl fmt::Debug for Packed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the passwords in it.
        f.debug_list().entries(self.0.iter().map(|(member, _)| member)).finish()
    }
}

/// What is to take the place of credentials.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::target) struct Blank {
    pub(in crate::target) start: u64,
    pub(in crate::target) text: Vec<u8>,
}

impl Packed {
    /// Those of an archive; `has_own` says that this program has written the last one.
    pub(in crate::target) fn of(archive: &Archive, has_own: bool) -> Self {
        let own = has_own.then(|| archive.confs.len().saturating_sub(1));
        let classify = |(index, conf): (usize, &super::PackedConf)| {
            let content = match conf.text.get(..=slot::SIZE) {
                // One byte too many, by which it is known to be too large.
                Some(start) => Content::Conf(start.to_vec().into()),
                None if Some(index) == own => slot::classify_own(&conf.text),
                None => slot::classify(&conf.text),
            };
            (conf.member, content)
        };
        Self(archive.confs.iter().enumerate().map(classify).collect())
    }

    /// The one that is unpacked, which can't be overwritten in place; `is_in_order` says whether its directory is.
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

    /// Whether there are credentials in those that are not unpacked.
    pub(in crate::target) fn has_overridden(&self) -> bool {
        self.0.split_last().is_some_and(|(_, overridden)| overridden.iter().any(has_credentials))
    }

    /// What is to take the place of the credentials in all of them, in the order of the archive.
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
    /// Puts it into bytes that start at an offset.
    pub(in crate::target) fn put_into(&self, bytes: &mut [u8], start: u64) {
        for (offset, &byte) in (self.start..).zip(&self.text) {
            let place = offset.checked_sub(start).and_then(|place| usize::try_from(place).ok());
            if let Some(there) = place.and_then(|place| bytes.get_mut(place)) {
                *there = byte;
            }
        }
    }
}
