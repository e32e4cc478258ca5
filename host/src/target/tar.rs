//! Tar archives, which `l4t_initrd_flash.sh` flashes as `system.img`: the last member of a name wins, so a folder and a
//! `device.conf` follow those of the image builder. Each device overwrites them in place; nothing else changes.
//!
//! A `device.conf` that was packed with the rest is made blank once ours follows, for its password must not stay.

mod header;
pub(in crate::target) mod layout;
pub(in crate::target) mod source;
pub(in crate::target) mod tail;
pub(in crate::target) mod walk;

use std::cell::RefCell;
use std::path::Path;

use azaion_agent::device_conf::MODE;
use nix::errno::Errno;
use nix::fcntl::posix_fallocate;
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use super::image::Image;
use super::original::Original;
use super::slot::{self, Content};
use super::sums::{self, Base, Kept, Sum};
use super::{FOLDER_MODE, Found, Kind, Owner, Target};
use layout::Layout;

pub use source::{Plain, Source};
pub use walk::{Archive, Member, PackedConf, Problem, walk};

/// An archive of a root file system.
#[derive(Debug)]
pub(super) struct TarImage {
    image: Image,
    layout: RefCell<Layout>,
}

impl TarImage {
    pub(super) fn new(image: Image) -> anyhow::Result<Self> {
        let layout = RefCell::new(Layout::read(&image)?);
        Ok(Self { image, layout })
    }

    /// The base, certain, and kept beside the image.
    fn base(&self) -> anyhow::Result<Base> {
        let base = self.certain_base()?;
        if !self.layout.borrow().is_kept {
            base.keep(&self.image)?;
            self.layout.borrow_mut().is_kept = true;
        }
        Ok(base)
    }

    fn certain_base(&self) -> anyhow::Result<Base> {
        if let Some(base) = &self.layout.borrow().base {
            return Ok(base.clone());
        }
        let (base, is_kept) = {
            let layout = self.layout.borrow();
            let base = Base::read(&self.image, layout.end..u64::MAX, &layout.blanks())?;
            let is_kept = Kept::load(&self.image).is_some_and(|kept| kept.is_of(&base));
            (base, is_kept)
        };
        let mut layout = self.layout.borrow_mut();
        (layout.base, layout.is_kept) = (Some(base.clone()), is_kept);
        Ok(base)
    }

    /// Writes the tail with this block in it; durable, and the sum right, when this returns.
    fn set(&self, block: &[u8]) -> anyhow::Result<()> {
        let base = self.base()?;
        let length = self.put(block, base.end)?;
        base.finish(&self.image, length)
    }

    /// Writes the tail with this block in it behind the base; its length.
    fn put(&self, block: &[u8], end: u64) -> anyhow::Result<u64> {
        let size = self.size()?;
        let length = tail::length(end, size)
            .ok_or_else(|| self.image.refused("is too large; provision the rootfs directory"))?;
        self.grow(size, end.saturating_add(length))?;
        let tail = tail::make(block, self.layout.borrow().is_dotted, length);
        // Until it is written, for a write that fails may have got half way.
        self.layout.borrow_mut().tail = Some(Content::Torn);
        self.image.overwrite(&tail, end)?;
        self.layout.borrow_mut().tail = Some(slot::judge(block));
        self.make_blank()?;
        Ok(length)
    }

    fn size(&self) -> anyhow::Result<u64> {
        let metadata = self.image.file().metadata().map_err(|error| self.image.failed("reading", error))?;
        Ok(metadata.len())
    }

    /// Makes room for the tail first: a full disk leaves an archive with more zeros behind its end then.
    fn grow(&self, size: u64, wanted: u64) -> anyhow::Result<()> {
        let (Ok(from), Ok(more)) = (i64::try_from(size), i64::try_from(wanted.saturating_sub(size))) else {
            return Ok(());
        };
        if more == 0 {
            return Ok(());
        }
        match posix_fallocate(&*self.image.file(), from, more) {
            // Not every file system can; the write will tell.
            Ok(()) | Err(Errno::EOPNOTSUPP | Errno::EINVAL | Errno::ENOSYS) => Ok(()),
            Err(errno) => Err(self.image.failed("making room in", errno)),
        }
    }

    /// Takes credentials out of the base, where the tail overrides them.
    fn make_blank(&self) -> anyhow::Result<()> {
        let blanks = self.layout.borrow().blanks();
        for blank in &blanks {
            self.image.overwrite(&blank.text, blank.start)?;
        }
        self.layout.borrow_mut().confs.clear();
        Ok(())
    }

    /// Finishes what a run that was killed has left half done: the tail, blanks, the sum.
    fn settle(&self) -> anyhow::Result<()> {
        let kept = Kept::load(&self.image);
        let (is_torn, has_tail) = {
            let tail = &self.layout.borrow().tail;
            (*tail == Some(Content::Torn), tail.is_some())
        };
        if is_torn {
            return self.set(&self.block_in_force()?);
        }
        match kept {
            None if !has_tail => self.check_packed_device(),
            Some(kept) if kept.is_current(&self.image) => match Sum::read(&self.image)? {
                Some(sum) => kept.put_right(&self.image, &sum),
                None => Ok(()),
            },
            _ => self.finish_anew(has_tail),
        }
    }

    /// Checks the checksum of an archive without an appendix if a device is packed in it, which may stay as it is: nothing else
    /// checks it then.
    fn check_packed_device(&self) -> anyhow::Result<()> {
        let is_packed = self.layout.borrow().conf().is_some();
        if is_packed && Sum::read(&self.image)?.is_some() {
            self.certain_base()?;
        }
        Ok(())
    }

    /// Of an archive that is not as it was left: reads it again, and makes all follow from what is in it.
    fn finish_anew(&self, has_tail: bool) -> anyhow::Result<()> {
        let base = self.certain_base()?;
        if !has_tail {
            // One that was killed before it had written anything but room for the tail.
            return if base.is_summed { Ok(()) } else { self.set(&self.block_in_force()?) };
        }
        self.make_blank()?;
        base.finish(&self.image, self.size()?.saturating_sub(base.end))
    }

    /// The block that says what would be unpacked.
    fn block_in_force(&self) -> anyhow::Result<Zeroizing<Vec<u8>>> {
        match self.layout.borrow().conf() {
            Some((bytes, _)) => slot::block_of(bytes),
            None => Ok(Zeroizing::new(slot::blank())),
        }
    }
}

impl Target for TarImage {
    fn path(&self) -> &Path {
        &self.image.path
    }

    fn kind(&self) -> Kind {
        Kind::Tar
    }

    fn may_write(&self, _owner: Owner) -> anyhow::Result<()> {
        self.image.may_write()?;
        self.image.warn_if_open();
        self.image.may_write_beside()?;
        if !sums::may_write(&self.image)? {
            self.image.warn_of_no_sum();
        }
        Ok(())
    }

    fn tidy(&self) -> anyhow::Result<()> {
        self.image.tidy()?;
        sums::tidy(&self.image)?;
        self.settle()
    }

    fn look(&self) -> anyhow::Result<Option<Found>> {
        let layout = self.layout.borrow();
        if layout.tail == Some(Content::Torn) {
            self.image.warn_of_torn();
        }
        Ok(layout.conf().map(|(bytes, member)| {
            let (mode, uid, gid) = member.map_or((MODE, 0, 0), |member| (member.mode, member.uid, member.gid));
            Found { bytes: Zeroizing::new(bytes.to_vec()), mode, uid, gid }
        }))
    }

    fn is_in_order(&self, found: &Found, _owner: Owner) -> anyhow::Result<bool> {
        let layout = self.layout.borrow();
        // Of a tail of ours, all is.
        let folder = layout.tail.is_some()
            || layout.folder.is_some_and(|folder| (folder.mode, folder.uid, folder.gid) == (FOLDER_MODE, 0, 0));
        Ok(folder && (found.mode, found.uid, found.gid) == (MODE, 0, 0))
    }

    fn write(&self, conf: &SecretString, _owner: Owner) -> anyhow::Result<()> {
        self.set(&slot::block_of(conf.expose_secret().as_bytes())?)
    }

    fn original(&self) -> anyhow::Result<Original> {
        self.image.original(Sum::read(&self.image)?)
    }

    fn restore(&self, before: Option<&Found>) -> anyhow::Result<()> {
        let Some(before) = before else { return self.clear().map(drop) };
        if self.layout.borrow().is_unchanged_from(&before.bytes) {
            return Ok(());
        }
        self.set(&slot::block_of(&before.bytes)?)
    }

    fn clear(&self) -> anyhow::Result<bool> {
        let had = self.layout.borrow().has_credentials();
        if had {
            self.image.may_write()?;
            sums::may_write(&self.image)?;
        }
        let is_given_up = sums::is_given_up(self.tidy())?;
        if self.layout.borrow().has_credentials() {
            let end = self.layout.borrow().end;
            if is_given_up || sums::is_given_up(self.set(&slot::blank()))? {
                self.put(&slot::blank(), end)?;
            }
        }
        Ok(had)
    }
}

#[cfg(test)]
mod tests;
