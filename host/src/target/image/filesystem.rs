//! Images with an ext4 file system, raw or Android sparse. `device.conf` is one block of the file system, the slot,
//! which each device overwrites in place. Nothing else in the image changes: no checksum of ext4 covers the data of a
//! file.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use azaion_agent::common::device_conf::MODE;
use azaion_agent::common::history;
use rustix::fs::{Mode, OFlags};
use zeroize::Zeroizing;

use super::copy::copy_with_holes;
use super::ext4::{self, FileSystem, Inode};
use super::medium::{BLOCK, Medium, Raw};
use super::problem::Problem;
use super::sandbox;
use super::signature::{Signature, head_of, signature_of};
use super::slot::{self, Content};
use super::slot_image::{Format, Slot};
use super::sparse::Sparse;
use crate::target::DIRECTORY_MODE;
use crate::target::Kind;
use crate::target::error::Result;
use crate::target::free_space;
use crate::target::image::file::Image;
use crate::target::image::make_slot;
use crate::target::lock::Access;

const DIRECTORIES: [&str; 2] = ["etc", "azaion"];
const NAME: &str = "device.conf";

/// The warning about `metadata_csum_seed` (OE4T/meta-tegra#1614).
const CHECKSUM_SEED: &str = "has the ext4 feature metadata_csum_seed, which NVIDIA's UEFI is reported to \
                             misread, so a device whose /boot is in it may not boot; make the image with \
                             `mkfs.ext4 -O ^metadata_csum_seed,^orphan_file` (e2fsprogs 1.47.1 and later \
                             set both by default)";

/// The format of a raw ext4 image.
#[derive(Debug)]
pub(super) struct Ext4Format;

/// The format of an Android sparse image of an ext4 file system.
#[derive(Debug)]
pub(super) struct SparseFormat;

/// Returns the format of an Android sparse image.
///
/// # Errors
/// The image is damaged, or holds something other than a root file system.
pub(super) fn sparse_format(image: &Image) -> Result<Box<dyn Format>> {
    let file = image.file();
    let sparse = sparse(image, &file)?;
    let head = head_of(&sparse).map_err(|error| image.failed("reading", error))?;
    let why = match signature_of(&head) {
        Ok(Signature::Ext4) => return Ok(Box::new(SparseFormat)),
        Ok(_) => "is not a file system, but the flasher would write it to the partition; unpack it with simg2img",
        Err(why) => why,
    };
    Err(image.refused(format_args!("is an Android sparse image, and its content {why}")))
}

impl Format for Ext4Format {
    fn kind(&self) -> Kind {
        Kind::Ext4
    }

    fn find(&self, image: &Image, file: &File) -> Result<Option<Slot>> {
        find_slot(image, &raw(image, file)?)
    }

    fn can_make(&self) -> Result<()> {
        sandbox::is_possible()
    }

    fn make(&self, image: &Image, block: &[u8], into: &File) -> Result<()> {
        copy_if_space(&image.file(), into).map_err(|error| image.failed("making a copy of", error))?;
        make_slot(image, into, block).map(drop)
    }

    fn check_slot(&self, image: &Image, offset: u64) -> Result<()> {
        let fail = |error| image.failed("reading", error);
        let file = image.file();
        if sandbox::may_read(&file).map_err(fail)? {
            return make_slot::check(image, &file);
        }
        let raw = scratch(image)?;
        copy_if_space(&file, &raw).map_err(|error| image.failed("making a copy of", error))?;
        check_copy(image, &raw, offset)
    }

    fn warnings(&self, image: &Image) -> Result<Vec<String>> {
        warnings(image, &raw(image, &image.file())?)
    }

    fn history(&self, image: &Image) -> Result<Option<Vec<u8>>> {
        read_history(image, &raw(image, &image.file())?)
    }
}

impl Format for SparseFormat {
    fn kind(&self) -> Kind {
        Kind::Sparse
    }

    fn find(&self, image: &Image, file: &File) -> Result<Option<Slot>> {
        find_slot(image, &sparse(image, file)?)
    }

    fn can_make(&self) -> Result<()> {
        sandbox::is_possible()
    }

    fn make(&self, image: &Image, block: &[u8], into: &File) -> Result<()> {
        let file = image.file();
        let sparse = sparse(image, &file)?;
        if sparse.has_checksums() {
            let path = image.path.display();
            log::warn!(
                "{path} contains checksums (make_ext4fs -c), which device.conf would invalidate; it is rewritten \
                 without them"
            );
        }
        let raw = image.scratch()?;
        unpack(image, &sparse, &raw)?;
        make_slot(image, &raw, block)?;
        sparse.repack(&raw, into).map_err(|problem| image.problem(problem))
    }

    fn check_slot(&self, image: &Image, _offset: u64) -> Result<()> {
        let file = image.file();
        let sparse = sparse(image, &file)?;
        let raw = scratch(image)?;
        unpack(image, &sparse, &raw)?;
        let slot = find_slot(image, &Raw::new(&raw).map_err(|error| image.failed("reading", error))?)?;
        check_copy(image, &raw, slot.and_then(|slot| slot.place).unwrap_or_default())
    }

    fn warnings(&self, image: &Image) -> Result<Vec<String>> {
        warnings(image, &sparse(image, &image.file())?)
    }

    fn history(&self, image: &Image) -> Result<Option<Vec<u8>>> {
        read_history(image, &sparse(image, &image.file())?)
    }
}

fn raw<'f>(image: &Image, file: &'f File) -> Result<Raw<'f>> {
    Raw::new(file).map_err(|error| image.failed("reading", error))
}

fn sparse<'f>(image: &Image, file: &'f File) -> Result<Sparse<'f>> {
    Sparse::open(file).map_err(|problem| image.problem(problem))
}

/// Creates a file without a name for a copy: beside the image if possible, because other file systems rarely have
/// enough space.
pub(super) fn scratch(image: &Image) -> Result<File> {
    // Elsewhere the file never has a name, not even for a moment: nothing would remove what a killed run leaves there.
    let flags = OFlags::TMPFILE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
    let elsewhere = || rustix::fs::open(std::env::temp_dir(), flags, Mode::RUSR | Mode::WUSR).map(File::from);
    image.scratch().or_else(|error| elsewhere().map_err(|_| error))
}

/// Copies a file, if there is enough free space.
fn copy_if_space(from: &File, to: &File) -> io::Result<()> {
    free_space::check(to, free_space::taken(from)?)?;
    copy_with_holes(from, to)
}

/// Writes the raw image that a sparse image describes into an empty file.
fn unpack(image: &Image, sparse: &Sparse<'_>, raw: &File) -> Result<()> {
    let size = FileSystem::open(sparse).and_then(|system| sparse.check_claims(system.size()));
    size.map_err(|problem| image.problem(problem))?;
    let fail = |error| image.failed("making a copy of", error);
    free_space::check(raw, sparse.unpacked_bytes()).map_err(fail)?;
    sparse.unpack(raw).map_err(fail)
}

/// Removes the device from an unnamed copy, whose slot is at `offset`, and checks the copy with e2fsck.
pub(super) fn check_copy(image: &Image, raw: &File, offset: u64) -> Result<()> {
    raw.write_all_at(&slot::blank(), offset).map_err(|error| image.failed("writing the copy of", error))?;
    make_slot::check(image, raw)
}

/// Returns warnings about properties of a file system that may keep the device from booting.
pub(super) fn warnings(image: &Image, medium: &dyn Medium) -> Result<Vec<String>> {
    let system = FileSystem::open(medium).map_err(|problem| image.problem(problem))?;
    let warning = || format!("{} {CHECKSUM_SEED}", image.path.display());
    Ok(system.has_checksum_seed().then(warning).into_iter().collect())
}

/// Opens a file system. For reading only, it need not have been unmounted cleanly: the drive of a returned device
/// rarely was.
fn open<'m>(image: &Image, medium: &'m dyn Medium) -> Result<FileSystem<'m>, Problem> {
    match image.access {
        Access::Change => FileSystem::open(medium),
        Access::Read => FileSystem::open_unclean(medium),
    }
}

/// Reads the agent's history from a file system, if there is one.
pub(super) fn read_history(image: &Image, medium: &dyn Medium) -> Result<Option<Vec<u8>>> {
    let system = open(image, medium).map_err(|problem| image.problem(problem))?;
    if !system.is_clean() {
        log::warn!(
            "{} was not unmounted cleanly, and its journal is not replayed: the output may be older than what the \
             device wrote last; to replay the journal, run `e2fsck -f` on a copy",
            image.path.display()
        );
    }
    let path: Vec<&str> = history::PATH.split('/').filter(|name| !name.is_empty()).collect();
    system.read(&path, history::LARGEST as u64).map_err(|problem| image.problem(problem))
}

fn find_in(image: &Image, medium: &dyn Medium) -> Result<ext4::Found> {
    let found = open(image, medium).and_then(|system| system.find(DIRECTORIES, NAME));
    found.map_err(|problem| image.problem(problem))
}

/// Finds the `device.conf` in a file system, if there is one with content.
pub(super) fn find_slot(image: &Image, medium: &dyn Medium) -> Result<Option<Slot>> {
    let ext4::Found { directory: Some(directory), file: Some(file) } = find_in(image, medium)? else { return Ok(None) };
    let inode = &file.inode;
    if inode.size == 0 && file.all.is_empty() {
        return Ok(None);
    }
    let mut bytes = Zeroizing::new(vec![0; slot::SIZE]);
    let read = file.first.and_then(|block| block.checked_mul(BLOCK)).map(|offset| medium.read_at(&mut bytes, offset));
    read.transpose().map_err(|error| image.failed("reading", error))?;
    let is_ours = slot::is_ours(&bytes);
    let size = usize::try_from(inode.size).unwrap_or(usize::MAX);
    let content = match bytes.get(..size) {
        Some(content) => slot::classify(content),
        // One byte too many marks it as too large.
        None => Content::Conf(Zeroizing::new([&bytes[..], &[0]].concat())),
    };
    let mode = inode.permissions();
    let is_in_order = file.block.is_some() && is_in_order(&directory, inode);
    let (place, uid, gid) = (file.block.and_then(|block| medium.offset_of(block)), inode.uid, inode.gid);
    Ok(Some(Slot { content, place, is_in_order, is_ours, size, mode, uid, gid }))
}

/// Returns whether `device.conf` and its directory have the required modes and owners, and no access control list.
fn is_in_order(directory: &Inode, file: &Inode) -> bool {
    let is_owned_by_root = |inode: &Inode| (inode.uid, inode.gid) == (0, 0) && !inode.has_access_list;
    let has_modes = file.permissions() == MODE && directory.permissions() == DIRECTORY_MODE;
    has_modes && is_owned_by_root(file) && is_owned_by_root(directory) && !file.is_fixed()
}

/// Makes a slot with this block in a raw image, and returns the offset of the slot.
pub(super) fn make_slot(image: &Image, raw: &File, block: &[u8]) -> Result<u64> {
    let medium = Raw::new(raw).map_err(|error| image.failed("reading the copy of", error))?;
    let fail = |error| image.failed("writing the copy of", error);
    let found = find_in(image, &medium)?;
    if let Some(file) = &found.file {
        // debugfs and e2fsck need not see the device that is there, and none of its bytes may stay in blocks that
        // become free.
        let blank = if file.block.is_some() { slot::blank() } else { vec![0; slot::SIZE] };
        let offsets = file.all.iter().filter_map(|&block| medium.offset_of(block));
        offsets.into_iter().try_for_each(|offset| raw.write_all_at(&blank, offset)).map_err(fail)?;
    }
    make_slot::make_slot(image, raw, &found)?;
    // The content of the slot is not checked here: it is still the old or the blank one.
    let offset = match find_in(image, &medium)? {
        ext4::Found { directory: Some(directory), file: Some(file) }
            if is_in_order(&directory, &file.inode) && file.inode.size == slot::SIZE as u64 =>
        {
            file.block.and_then(|block| medium.offset_of(block))
        }
        _ => None,
    };
    let offset = offset.ok_or_else(|| {
        image.refused(
            "was not changed: debugfs did not make a valid device.conf in a copy of it; provision the rootfs directory",
        )
    })?;
    raw.write_all_at(block, offset).map_err(fail)?;
    Ok(offset)
}
