//! Images with an ext4 file system, raw or Android sparse: a `device.conf` is one block of it, its slot, which each device
//! overwrites in place. Nothing else of the image changes: no checksum of ext4 covers the data of a file.

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

const FOLDERS: [&str; 2] = ["etc", "azaion"];
const NAME: &str = "device.conf";

/// What `metadata_csum_seed` does to a device (OE4T/meta-tegra#1614).
const CHECKSUM_SEED: &str = "has the ext4 feature metadata_csum_seed, which NVIDIA's UEFI is reported to misread, so a device whose \
                             /boot lies in it may not boot; make the image with `mkfs.ext4 -O ^metadata_csum_seed,^orphan_file` \
                             (e2fsprogs 1.47.1 and later set both by default)";

/// A raw ext4 image.
#[derive(Debug)]
pub(super) struct Ext4Format;

/// An Android sparse image of one.
#[derive(Debug)]
pub(super) struct SparseFormat;

/// The format of an Android sparse image.
///
/// # Errors
/// It is damaged, or holds something other than a root file system.
pub(super) fn sparse_format(image: &Image) -> Result<Box<dyn Format>> {
    let file = image.file();
    let sparse = sparse(image, &file)?;
    let head = head_of(&sparse).map_err(|error| image.failed("reading", error))?;
    let why = match signature_of(&head) {
        Ok(Signature::Ext4) => return Ok(Box::new(SparseFormat)),
        Ok(_) => "is no file system, which the flasher would write to the partition; unpack it with simg2img",
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
        copy_in_room(&image.file(), into).map_err(|error| image.failed("making a copy of", error))?;
        make_slot(image, into, block).map(drop)
    }

    fn check_slot(&self, image: &Image, place: u64) -> Result<()> {
        let fail = |error| image.failed("reading", error);
        let file = image.file();
        if sandbox::may_read(&file).map_err(fail)? {
            return make_slot::check(image, &file);
        }
        let raw = scratch(image)?;
        copy_in_room(&file, &raw).map_err(|error| image.failed("making a copy of", error))?;
        check_copy(image, &raw, place)
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
                "{path} carries checksums (make_ext4fs -c), which a device would make wrong; it is written without them"
            );
        }
        let raw = image.scratch()?;
        unpack(image, &sparse, &raw)?;
        make_slot(image, &raw, block)?;
        sparse.repack(&raw, into).map_err(|problem| image.problem(problem))
    }

    fn check_slot(&self, image: &Image, _place: u64) -> Result<()> {
        let file = image.file();
        let sparse = sparse(image, &file)?;
        let raw = scratch(image)?;
        unpack(image, &sparse, &raw)?;
        let place = find_slot(image, &Raw::new(&raw).map_err(|error| image.failed("reading", error))?)?;
        check_copy(image, &raw, place.and_then(|slot| slot.place).unwrap_or_default())
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

/// A file without a name for a copy: beside the image where that is possible, for elsewhere there is rarely room for it.
pub(super) fn scratch(image: &Image) -> Result<File> {
    // Elsewhere it never has a name, not even for a moment: nobody would take away what a run that is killed leaves there.
    let flags = OFlags::TMPFILE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
    let elsewhere = || rustix::fs::open(std::env::temp_dir(), flags, Mode::RUSR | Mode::WUSR).map(File::from);
    image.scratch().or_else(|error| elsewhere().map_err(|_| error))
}

/// Copies a file, if there is room for it.
fn copy_in_room(from: &File, to: &File) -> io::Result<()> {
    free_space::check(to, free_space::taken(from)?)?;
    copy_with_holes(from, to)
}

/// Writes the raw image that a sparse one describes into an empty file.
fn unpack(image: &Image, sparse: &Sparse<'_>, raw: &File) -> Result<()> {
    let size = FileSystem::open(sparse).and_then(|system| sparse.check_claims(system.size()));
    size.map_err(|problem| image.problem(problem))?;
    let fail = |error| image.failed("making a copy of", error);
    free_space::check(raw, sparse.unpacked_bytes()).map_err(fail)?;
    sparse.unpack(raw).map_err(fail)
}

/// Checks an unnamed copy, without the device in it, whose block lies at `place`.
pub(super) fn check_copy(image: &Image, raw: &File, place: u64) -> Result<()> {
    raw.write_all_at(&slot::blank(), place).map_err(|error| image.failed("writing the copy of", error))?;
    make_slot::check(image, raw)
}

/// What in a file system may keep the device from booting.
pub(super) fn warnings(image: &Image, medium: &dyn Medium) -> Result<Vec<String>> {
    let system = FileSystem::open(medium).map_err(|problem| image.problem(problem))?;
    let warning = || format!("{} {CHECKSUM_SEED}", image.path.display());
    Ok(system.has_checksum_seed().then(warning).into_iter().collect())
}

/// What is only read need not have been unmounted cleanly: a drive that came back rarely was.
fn open<'m>(image: &Image, medium: &'m dyn Medium) -> Result<FileSystem<'m>, Problem> {
    match image.access {
        Access::Change => FileSystem::open(medium),
        Access::Read => FileSystem::open_unclean(medium),
    }
}

/// The agent's history in a file system, if there is one.
pub(super) fn read_history(image: &Image, medium: &dyn Medium) -> Result<Option<Vec<u8>>> {
    let system = open(image, medium).map_err(|problem| image.problem(problem))?;
    if !system.is_clean() {
        log::warn!(
            "{} was not unmounted cleanly, and its journal is not replayed: what is shown may be older than what the device wrote \
             last; `e2fsck -f` replays it, on a copy",
            image.path.display()
        );
    }
    let path: Vec<&str> = history::PATH.split('/').filter(|name| !name.is_empty()).collect();
    system.read(&path, history::LARGEST as u64).map_err(|problem| image.problem(problem))
}

fn find_in(image: &Image, medium: &dyn Medium) -> Result<ext4::Found> {
    let found = open(image, medium).and_then(|system| system.find(FOLDERS, NAME));
    found.map_err(|problem| image.problem(problem))
}

/// The `device.conf` in a file system, if there is one with content.
pub(super) fn find_slot(image: &Image, medium: &dyn Medium) -> Result<Option<Slot>> {
    let ext4::Found { folder: Some(folder), file: Some(file) } = find_in(image, medium)? else { return Ok(None) };
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
        // One byte too many, by which it is known to be too large.
        None => Content::Conf(Zeroizing::new([&bytes[..], &[0]].concat())),
    };
    let mode = inode.permissions();
    let is_in_order = file.block.is_some() && is_in_order(&folder, inode);
    let (place, uid, gid) = (file.block.and_then(|block| medium.offset_of(block)), inode.uid, inode.gid);
    Ok(Some(Slot { content, place, is_in_order, is_ours, size, mode, uid, gid }))
}

/// Whether `device.conf` and its folder have the modes and owners that they must have, and let in nobody besides.
fn is_in_order(folder: &Inode, file: &Inode) -> bool {
    let is_roots = |inode: &Inode| (inode.uid, inode.gid) == (0, 0) && !inode.has_access_list;
    let has_modes = file.permissions() == MODE && folder.permissions() == DIRECTORY_MODE;
    has_modes && is_roots(file) && is_roots(folder) && !file.is_fixed()
}

/// Makes a slot with this block in a raw image, and returns its offset.
pub(super) fn make_slot(image: &Image, raw: &File, block: &[u8]) -> Result<u64> {
    let medium = Raw::new(raw).map_err(|error| image.failed("reading the copy of", error))?;
    let fail = |error| image.failed("writing the copy of", error);
    let found = find_in(image, &medium)?;
    if let Some(file) = &found.file {
        // No other program needs to see the device that is there, and none of its bytes may stay in blocks that become free.
        let blank = if file.block.is_some() { slot::blank() } else { vec![0; slot::SIZE] };
        let places = file.all.iter().filter_map(|&block| medium.offset_of(block));
        places.into_iter().try_for_each(|place| raw.write_all_at(&blank, place)).map_err(fail)?;
    }
    make_slot::make_slot(image, raw, &found)?;
    // What lies there is what was there before, or blank: its content says nothing yet.
    let place = match find_in(image, &medium)? {
        ext4::Found { folder: Some(folder), file: Some(file) }
            if is_in_order(&folder, &file.inode) && file.inode.size == slot::SIZE as u64 =>
        {
            file.block.and_then(|block| medium.offset_of(block))
        }
        _ => None,
    };
    let place = place.ok_or_else(|| {
        image.refused("could not be given a slot by debugfs, and was left alone; provision the rootfs directory")
    })?;
    raw.write_all_at(block, place).map_err(fail)?;
    Ok(place)
}
