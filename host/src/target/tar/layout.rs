//! Where the parts of an archive lie: the base, which is the image builder's, and the tail, which is ours.

use std::fmt;
use std::os::unix::fs::FileExt;

use zeroize::Zeroizing;

use super::source::Plain;
use super::tail;
use super::walk::{Archive, MOST_PADDING, Member, PackedConf, Problem, walk, walk_base};
use crate::target::image::Image;
use crate::target::slot::{self, Content};
use crate::target::sums::{Base, Blank, Kept};

/// An archive as it was found.
pub(super) struct Layout {
    /// Where the base ends.
    pub(super) end: u64,
    /// Whether names start with `./`.
    pub(super) is_dotted: bool,
    /// The last `etc/azaion` of the base.
    pub(super) folder: Option<Member>,
    /// Each `device.conf` of the base, with what is in it. None is known of an archive that is as it was left: they are
    /// blank there.
    pub(super) confs: Vec<(Member, Content)>,
    /// What our tail holds.
    pub(super) tail: Option<Content>,
    /// The base, once it is certain.
    pub(super) base: Option<Base>,
    /// Whether that is what is kept beside the image.
    pub(super) is_kept: bool,
}

impl fmt::Debug for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Layout").field("end", &self.end).finish_non_exhaustive()
    }
}

impl Layout {
    /// Finds out, without a way through all headers if the archive is as it was left.
    pub(super) fn read(image: &Image) -> anyhow::Result<Self> {
        let kept = Kept::load(image);
        if let Some(kept) = kept.as_ref().filter(|kept| kept.is_current(image))
            && let Some(layout) = Self::as_left(image, kept)?
        {
            return Ok(layout);
        }
        let walked = Self::walk(image);
        match kept {
            Some(kept) if walked.as_ref().map_or(u64::MAX, |layout| layout.end) != kept.end() => {
                Self::torn(image, &kept)?.map_or(walked, Ok)
            }
            _ => walked,
        }
    }

    fn as_left(image: &Image, kept: &Kept) -> anyhow::Result<Option<Self>> {
        let rest = rest(image, kept.end())?;
        let Some((block, is_dotted)) = tail::parse(&rest) else { return Ok(None) };
        let (base, tail) = (Some(kept.base()?), Some(slot::judge_own(block)));
        Ok(Some(Self { end: kept.end(), is_dotted, folder: None, confs: Vec::new(), tail, base, is_kept: true }))
    }

    /// From header to header.
    fn walk(image: &Image) -> anyhow::Result<Self> {
        let file = image.file();
        let archive = Plain::new(&file).map_err(Problem::Io).and_then(|mut source| walk(&mut source));
        let mut archive = archive.map_err(|problem| image.problem(problem))?;
        if let Some(place) = tail::place(&archive) {
            let rest = rest(image, place)?;
            if let Some((block, _)) = tail::parse(&rest) {
                archive.confs.pop();
                archive.end = place;
                return Ok(Self { tail: Some(slot::judge_own(block)), ..Self::of(image, archive)? });
            }
        }
        Self::of(image, archive)
    }

    /// An archive that a power cut has left with the half of a first tail: only that its base is the one that was kept
    /// proves that nothing else is wrong with it.
    fn torn(image: &Image, kept: &Kept) -> anyhow::Result<Option<Self>> {
        let file = image.file();
        let mut source = Plain::new(&file).map_err(|error| image.failed("reading", error))?;
        let Ok(archive) = walk_base(&mut source, kept.end()) else { return Ok(None) };
        let layout = Self::of(image, archive)?;
        let is_short = rest_length(image, kept.end())? <= tail::longest(MOST_PADDING);
        if is_short && tail::may_be_torn(&rest(image, kept.end())?) && Base::is_proven(image, kept, &layout.blanks())? {
            return Ok(Some(Self { tail: Some(Content::Torn), base: Some(kept.base()?), is_kept: true, ..layout }));
        }
        Ok(None)
    }

    fn of(image: &Image, archive: Archive) -> anyhow::Result<Self> {
        let Archive { end, is_dotted, folder, confs, .. } = archive;
        let confs = confs.into_iter().map(|conf| classify(image, &conf)).collect::<anyhow::Result<_>>()?;
        Ok(Self { end, is_dotted, folder, confs, tail: None, base: None, is_kept: false })
    }

    /// What is to take the place of credentials in the base.
    pub(super) fn blanks(&self) -> Vec<Blank> {
        blanks(&self.confs)
    }

    /// The `device.conf` that would be unpacked, and the member it is if it lies in the base.
    pub(super) fn conf(&self) -> Option<(&[u8], Option<&Member>)> {
        match (&self.tail, self.confs.last()) {
            (Some(Content::Conf(bytes)), _) => Some((bytes, None)),
            // The run that died had not blanked it yet.
            (Some(Content::Torn) | None, Some((member, Content::Conf(bytes)))) => Some((bytes, Some(member))),
            _ => None,
        }
    }

    /// Whether these bytes would be unpacked, and no write has failed half way.
    pub(super) fn is_unchanged_from(&self, bytes: &[u8]) -> bool {
        self.tail != Some(Content::Torn) && self.conf().is_some_and(|(conf, _)| conf == bytes)
    }

    /// Whether there is anything of a device.
    pub(super) fn has_credentials(&self) -> bool {
        self.tail.as_ref().is_some_and(|content| *content != Content::Blank) || !self.blanks().is_empty()
    }
}

/// What a packed `device.conf` holds.
///
/// # Errors
/// It is no text.
pub(in crate::target) fn classify(image: &Image, conf: &PackedConf) -> anyhow::Result<(Member, Content)> {
    match slot::judge(&conf.text) {
        Content::Foreign => Err(image.refused(
            "has an etc/azaion/device.conf that is no text; look at it, and take it away in the rootfs directory",
        )),
        content => Ok((conf.member, content)),
    }
}

/// What is to take the place of the credentials in these files.
pub(in crate::target) fn blanks(confs: &[(Member, Content)]) -> Vec<Blank> {
    let full = confs.iter().filter(|(_, content)| *content != Content::Blank);
    let blank = |(member, _): &(Member, Content)| {
        let mut text = slot::blank();
        text.truncate(usize::try_from(member.size).unwrap_or_default());
        Blank { start: member.content, text }
    };
    full.map(blank).collect()
}

fn rest_length(image: &Image, end: u64) -> anyhow::Result<u64> {
    let metadata = image.file().metadata().map_err(|error| image.failed("reading", error))?;
    Ok(metadata.len().saturating_sub(end))
}

/// All bytes that follow a base, but not more than may.
fn rest(image: &Image, end: u64) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    let length = rest_length(image, end)?.min(tail::longest(MOST_PADDING));
    let mut rest = Zeroizing::new(vec![0; usize::try_from(length).unwrap_or_default()]);
    image.file().read_exact_at(&mut rest, end).map_err(|error| image.failed("reading", error))?;
    Ok(rest)
}
