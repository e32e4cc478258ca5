//! Images with an ext4 file system, raw or Android sparse: a `device.conf` is one block of it, its slot, which each device
//! overwrites in place. Nothing else of the image changes: no checksum of ext4 covers the data of a file.

use std::cell::RefCell;
use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use azaion_agent::device_conf::MODE;
use azaion_agent::exit::Exit;
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use super::copy::copy_with_holes;
use super::ext4::{self, FileSystem, OneBlockFile};
use super::image::Image;
use super::medium::{BLOCK, Medium, Raw};
use super::slot::{self, Content};
use super::sparse::Sparse;
use super::sums::Sum;
use super::{FOLDER_MODE, Found, Kind, Owner, Target, look_and_mark, prepare, sums};
use crate::failure::failure;

const FOLDERS: [&str; 2] = ["etc", "azaion"];
const NAME: &str = "device.conf";

/// What `metadata_csum_seed` does to a device (OE4T/meta-tegra#1614).
const CHECKSUM_SEED: &str = "has the ext4 feature metadata_csum_seed, which NVIDIA's UEFI is reported to misread, so a device whose \
                             /boot lies in it may not boot; make the image with `mkfs.ext4 -O ^metadata_csum_seed,^orphan_file` \
                             (e2fsprogs 1.47.1 and later set both by default)";

/// An image with a file system.
#[derive(Debug)]
pub(super) struct FileSystemImage {
    image: Image,
    kind: Kind,
    written: RefCell<Option<Written>>,
}

/// A device's block that this run has put into the slot. As long as it lies there, nobody has moved the slot: no other block is
/// like it.
struct Written {
    block: Zeroizing<Vec<u8>>,
    place: u64,
}

impl fmt::Debug for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the password in it.
        f.debug_struct("Written").field("place", &self.place).finish_non_exhaustive()
    }
}

/// The file of an image.
struct Slot {
    file: OneBlockFile,
    content: Content,
    /// Where in the image file the block lies, if it lies there as it is.
    place: Option<u64>,
    /// Whether mode, owner and size are those of a slot, and its folder's are right.
    is_in_order: bool,
}

impl FileSystemImage {
    pub(super) fn new(image: Image, kind: Kind) -> Self {
        Self { image, kind, written: RefCell::default() }
    }

    /// Shows the file system to `look`, wherever its blocks lie.
    fn with_medium<T>(&self, file: &File, look: impl FnOnce(&dyn Medium) -> anyhow::Result<T>) -> anyhow::Result<T> {
        match self.kind {
            Kind::Sparse => look(&Sparse::open(file).map_err(|problem| self.image.problem(problem))?),
            _ => look(&Raw::new(file).map_err(|error| self.image.failed("reading", error))?),
        }
    }

    fn find_in(&self, medium: &dyn Medium) -> anyhow::Result<ext4::Found> {
        let found = FileSystem::open(medium).and_then(|system| system.find(FOLDERS, NAME));
        found.map_err(|problem| self.image.problem(problem))
    }

    /// The file, if there is one with content.
    fn slot(&self) -> anyhow::Result<Option<Slot>> {
        self.with_medium(&self.image.file(), |medium| self.slot_in(medium))
    }

    fn slot_in(&self, medium: &dyn Medium) -> anyhow::Result<Option<Slot>> {
        let ext4::Found { folder: Some(folder), file: Some(file) } = self.find_in(medium)? else { return Ok(None) };
        let Some(block) = file.block else { return Ok(None) };
        let mut bytes = Zeroizing::new(vec![0; slot::SIZE]);
        let read = block.checked_mul(BLOCK).map_or(Ok(()), |offset| medium.read_at(&mut bytes, offset));
        read.map_err(|error| self.image.failed("reading", error))?;
        let size = usize::try_from(file.inode.size).unwrap_or(slot::SIZE);
        let content = slot::judge(bytes.get(..size).unwrap_or(&bytes));
        if content == Content::Foreign {
            return Err(self
                .image
                .refused("has an etc/azaion/device.conf that is no text; look at it, and take it away by hand"));
        }
        let inode = &file.inode;
        let is_in_order = inode.permissions() == MODE
            && (inode.uid, inode.gid) == (0, 0)
            && folder.permissions() == FOLDER_MODE
            && (folder.uid, folder.gid) == (0, 0);
        Ok(Some(Slot { place: medium.place(block), content, is_in_order, file }))
    }

    /// Where the slot lies; made, if it is not there yet.
    fn place(&self) -> anyhow::Result<u64> {
        if let Some(place) = self.slot()?.and_then(|slot| slot.writable_place()) {
            return Ok(place);
        }
        self.make_place()?;
        let slot = self.slot()?.and_then(|slot| slot.writable_place());
        slot.ok_or_else(|| failure(Exit::Internal, "the slot that was made can't be found again"))
    }

    /// Makes the slot, in a copy that then takes the image's place.
    fn make_place(&self) -> anyhow::Result<()> {
        prepare::is_possible()?;
        sums::check(&self.image)?;
        let fail = |error| self.image.failed("making a copy of", error);
        let staged = self.image.stage()?;
        if self.kind == Kind::Sparse {
            let file = self.image.file();
            let sparse = Sparse::open(&file).map_err(|problem| self.image.problem(problem))?;
            let raw = tempfile::tempfile_in(self.image.real_folder()).map_err(fail)?;
            sparse.unpack(&raw).map_err(fail)?;
            self.make_slot(&raw)?;
            sparse.repack(&raw, staged.file()).map_err(|problem| self.image.problem(problem))?;
        } else {
            copy_with_holes(&self.image.file(), staged.file()).map_err(fail)?;
            self.make_slot(staged.file())?;
        }
        let slot = self.with_medium(staged.file(), |medium| self.slot_in(medium))?;
        let place = slot.and_then(|slot| slot.writable_place()).ok_or_else(|| {
            self.image
                .refused("could not be given a slot by debugfs, and was left alone; provision the rootfs directory")
        })?;
        sums::begin_copy(&self.image, staged.file(), place)?;
        self.image.replace(staged)
    }

    /// Makes the slot in a raw copy; a `device.conf` that is there keeps its content.
    fn make_slot(&self, raw: &File) -> anyhow::Result<()> {
        let medium = Raw::new(raw).map_err(|error| self.image.failed("reading the copy of", error))?;
        let before = self.slot_in(&medium)?;
        prepare::make_slot(raw, &self.find_in(&medium)?)?;
        let Some(Slot { content, place: Some(place), .. }) = before else { return Ok(()) };
        let block = if let Content::Conf(conf) = content { slot::block_of(&conf)? } else { slot::blank().into() };
        let fail = |error| self.image.failed("writing the copy of", error);
        raw.write_all_at(&block, place).and_then(|()| raw.sync_all()).map_err(fail)
    }

    /// Whether this run may write to the image, to its slot or to make one.
    fn may_write_to(&self, slot: Option<&Slot>) -> anyhow::Result<()> {
        self.image.may_write()?;
        self.image.warn_if_open();
        if slot.is_none_or(|slot| slot.writable_place().is_none()) {
            self.image.may_write_beside()?;
            prepare::is_possible()?;
        }
        if sums::may_write(&self.image)? {
            self.image.may_write_beside()?;
        }
        Ok(())
    }

    /// The `device.conf` in the slot.
    fn found(&self, slot: Slot) -> Option<Found> {
        match slot.content {
            Content::Conf(bytes) => {
                let inode = slot.file.inode;
                Some(Found { bytes, mode: inode.permissions(), uid: inode.uid, gid: inode.gid })
            }
            Content::Torn => {
                self.image.warn_of_torn();
                None
            }
            Content::Blank | Content::Foreign => None,
        }
    }

    /// One write, durable, and the sum right, when this returns.
    fn overwrite(&self, block: &[u8], place: u64) -> anyhow::Result<()> {
        let base = sums::begin(&self.image, place)?;
        self.image.overwrite(block, place)?;
        base.map_or(Ok(()), |base| base.finish(&self.image, slot::SIZE as u64))
    }
}

impl Slot {
    /// Where it may be overwritten as it is.
    fn writable_place(&self) -> Option<u64> {
        self.place.filter(|_| self.is_in_order && self.file.inode.size == BLOCK)
    }
}

impl Target for FileSystemImage {
    fn path(&self) -> &Path {
        &self.image.path
    }

    fn kind(&self) -> Kind {
        self.kind
    }

    fn may_write(&self, _owner: Owner) -> anyhow::Result<()> {
        self.may_write_to(self.slot()?.as_ref())
    }

    fn survey(&self, _owner: Owner) -> anyhow::Result<Option<Found>> {
        let slot = self.slot()?;
        self.may_write_to(slot.as_ref())?;
        self.tidy()?;
        Ok(slot.and_then(|slot| self.found(slot)))
    }

    fn prepare(&self) -> anyhow::Result<()> {
        self.image.may_write()?;
        self.tidy()?;
        self.place().map(drop)
    }

    fn tidy(&self) -> anyhow::Result<()> {
        self.image.tidy()?;
        sums::settle(&self.image)
    }

    fn look(&self) -> anyhow::Result<Option<Found>> {
        Ok(self.slot()?.and_then(|slot| self.found(slot)))
    }

    fn is_in_order(&self, _found: &Found, _owner: Owner) -> anyhow::Result<bool> {
        Ok(self.slot()?.is_some_and(|slot| slot.is_in_order))
    }

    fn write(&self, conf: &SecretString, _owner: Owner) -> anyhow::Result<()> {
        let block = slot::block_of(conf.expose_secret().as_bytes())?;
        let place = self.place()?;
        self.overwrite(&block, place)?;
        self.written.replace(Some(Written { block, place }));
        Ok(())
    }

    fn mark(&self, owner: Owner) -> anyhow::Result<()> {
        // One write and no sync, which would be a twenty-fifth of the time that units take. A sum wants more than one write.
        if let Some(Written { block, place }) = self.written.take()
            && let Some(marked) = slot::with_mark_at_end(&block)
            && Sum::read(&self.image)?.is_none()
            && self.image.holds(&block, place)?
        {
            return self.image.overwrite_lazily(&marked, place);
        }
        look_and_mark(self, owner)
    }

    fn warnings(&self) -> anyhow::Result<Vec<String>> {
        let has_checksum_seed = self.with_medium(&self.image.file(), |medium| {
            FileSystem::open(medium)
                .map(|system| system.has_checksum_seed())
                .map_err(|problem| self.image.problem(problem))
        })?;
        let warning = || format!("{} {CHECKSUM_SEED}", self.image.path.display());
        Ok(has_checksum_seed.then(warning).into_iter().collect())
    }

    fn restore(&self, before: Option<&Found>) -> anyhow::Result<()> {
        let Some(before) = before else { return self.clear().map(drop) };
        let place = self.place()?;
        self.overwrite(&slot::block_of(&before.bytes)?, place)
    }

    fn clear(&self) -> anyhow::Result<bool> {
        let is_given_up = sums::is_given_up(self.tidy())?;
        let Some(slot) = self.slot()? else { return Ok(false) };
        if slot.content == Content::Blank {
            return Ok(false);
        }
        self.image.may_write()?;
        sums::may_write(&self.image)?;
        let place =
            slot.place.ok_or_else(|| self.image.refused("has a device.conf that can't be overwritten in place"))?;
        let mut block = slot::blank();
        // Of a file that others made, the rest of its block is zeros.
        block.iter_mut().skip(usize::try_from(slot.file.inode.size).unwrap_or(slot::SIZE)).for_each(|byte| *byte = 0);
        if is_given_up || sums::is_given_up(self.overwrite(&block, place))? {
            self.image.overwrite(&block, place)?;
        }
        Ok(true)
    }
}
