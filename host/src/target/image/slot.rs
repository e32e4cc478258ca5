//! The content of the slot: one block of text, for any device.
//!
//! The first line, the checksum line, contains a SHA-1 of the text, so that a block of which a power cut left one half
//! is detected. The password of such a block has never been used, because the API call follows the write. Newlines fill
//! the rest of the block. A block must not repeat one 32-bit word: a sparse image would store that as a fill chunk,
//! which cannot be overwritten in place.
//!
//! The checksum does not cover the confirmation comment. That is written when the password is already in use, and a
//! power cut at that time must lose nothing but the comment.

use std::fmt;

use sha1::{Digest, Sha1};
use zeroize::Zeroizing;

use super::medium::BLOCK_BYTES;
use crate::target::confirmation::{is_confirmed, without_confirmation};
use crate::target::error::{Error, Result};

/// Size of the slot in bytes: one block.
pub(super) const SIZE: usize = BLOCK_BYTES;
/// The text of a slot without a device.
const BLANK: &str = "# azaion-provision: no device yet\n";
/// Start of the checksum line, the first line of a slot with a device; the SHA-1 of its text follows.
const CHECKSUM_LINE: &str = "# azaion-provision: sha1 of what follows ";
/// Common start of both.
const PREFIX: &[u8] = b"# azaion-provision:";

/// The classified content of a slot.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Content {
    /// No device.
    Blank,
    /// A `device.conf`, or any other content that was not written by this program.
    Conf(Zeroizing<Vec<u8>>),
    /// An incompletely written block.
    Torn,
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Blank => "Blank",
            // Do not print the content: it contains the password.
            Self::Conf(_) => "Conf",
            Self::Torn => "Torn",
        })
    }
}

/// Returns the block for a text. If the text leaves no space for the checksum line, which no text of this program does,
/// the block has none.
///
/// # Errors
/// The text does not fit into one block.
pub(super) fn block_of(text: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
    let text = text.trim_ascii_end();
    let checksum_line = format!("{CHECKSUM_LINE}{}\n", hash(without_confirmation(text)));
    if checksum_line.len() + text.len() < SIZE {
        return Ok(padded(&[checksum_line.as_bytes(), text]));
    }
    if text.len() > SIZE {
        return Err(Error::TooLarge);
    }
    Ok(padded(&[text]))
}

/// Concatenates texts, and pads them with newlines to a block. They must fit.
fn padded(texts: &[&[u8]]) -> Zeroizing<Vec<u8>> {
    let mut block = Zeroizing::new(Vec::with_capacity(SIZE));
    for text in texts {
        block.extend_from_slice(text);
    }
    block.resize(SIZE, b'\n');
    block
}

/// Returns the block of a slot without a device.
pub(super) fn blank() -> Vec<u8> {
    let mut block = BLANK.as_bytes().to_vec();
    block.resize(SIZE, b'\n');
    block
}

/// Returns a text without white space at its end. Fast for the many newlines of a slot.
fn trimmed(mut text: &[u8]) -> &[u8] {
    while let Some(rest) = text.strip_suffix(&[b'\n'; 64]) {
        text = rest;
    }
    text.trim_ascii_end()
}

/// Returns whether a block starts with a first line of this program.
pub(super) fn is_ours(block: &[u8]) -> bool {
    block.starts_with(PREFIX)
}

/// Classifies a block that is known to be a slot: anything else than text is the result of an interrupted write.
pub(super) fn classify_own(block: &[u8]) -> Content {
    match classify(block) {
        Content::Conf(conf) if !is_ours(block) && !is_text(&conf) => Content::Torn,
        content => content,
    }
}

/// Classifies the bytes of a `device.conf`.
pub(super) fn classify(bytes: &[u8]) -> Content {
    let text = trimmed(bytes);
    // A shorter file, not made by this program, may have had space for a part of the text only.
    if BLANK.as_bytes().starts_with(text) {
        return Content::Blank;
    }
    if text.starts_with(BLANK.as_bytes()) {
        return Content::Torn;
    }
    if let Some(rest) = text.strip_prefix(CHECKSUM_LINE.as_bytes()) {
        let (checksum, conf) = rest.split_at_checked(40).unwrap_or((rest, b""));
        let conf = conf.strip_prefix(b"\n").unwrap_or_default();
        let bare = without_confirmation(conf);
        // Versions of November 2026 up to the 26th included the comment in the checksum.
        if hash(bare).as_bytes() != checksum && hash(conf).as_bytes() != checksum {
            return Content::Torn;
        }
        return conf_of(if is_confirmed(conf) { conf.trim_ascii_start() } else { bare }, b"\n");
    }
    // Keep one newline: it ends the last line.
    let end = bytes.len().min(text.len() + 1);
    if is_ours(text) { Content::Torn } else { conf_of(text, bytes.get(text.len()..end).unwrap_or_default()) }
}

fn is_text(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok_and(|text| !text.chars().any(|c| c.is_control() && c != '\n'))
}

fn conf_of(text: &[u8], end: &[u8]) -> Content {
    let mut conf = Zeroizing::new(Vec::with_capacity(text.len() + end.len()));
    conf.extend_from_slice(text);
    conf.extend_from_slice(end);
    Content::Conf(conf)
}

fn hash(text: &[u8]) -> String {
    base16ct::lower::encode_string(&Sha1::digest(text))
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;
    use crate::target::confirmation::with_confirmation;

    const CONF: &[u8] = b"AZAION_DEVICE_EMAIL=d@azaion.com\nAZAION_DEVICE_PASSWORD=p\n";

    // Promise: a block is classified as the text that was put into it, and no block repeats one 32-bit word.
    #[test]
    fn text_survives_a_round_trip() {
        let block = block_of(CONF).unwrap();
        assert_eq!((block.len(), classify(&block)), (SIZE, Content::Conf(Zeroizing::new(CONF.to_vec()))));
        assert_eq!(classify(&blank()), Content::Blank);
        for block in [block.as_slice(), &blank()] {
            assert_ne!(block[..4], block[4..8]);
        }
        assert!(block_of(&[b'x'; SIZE + 1]).is_err());
        for size in SIZE - 200..=SIZE {
            let text = vec![b'#'; size];
            let Content::Conf(conf) = classify(&block_of(&text).unwrap()) else { panic!("{size}") };
            assert_eq!((conf.trim_ascii_end(), conf.len() <= SIZE), (text.as_slice(), true));
        }
    }

    // Promise: each block with enough space has a checksum line, and a newline after its last line; larger texts have
    // none.
    #[test]
    fn has_checksum_line_if_it_fits() {
        let limit = SIZE - CHECKSUM_LINE.len() - 40 - 1 - 1;
        for (size, has_line) in [(0, true), (1, true), (limit, true), (limit + 1, false), (SIZE, false)] {
            let block = block_of(&vec![b'#'; size]).unwrap();
            assert_eq!(block.starts_with(CHECKSUM_LINE.as_bytes()), has_line, "{size}");
            assert!(!has_line || block.ends_with(b"\n"), "{size}");
        }
    }

    // Promise: the debug output of a slot names its kind, and contains nothing of its text.
    #[test]
    fn debug_output_has_no_text() {
        let all = [classify(b""), classify(CONF), classify(CHECKSUM_LINE.as_bytes()), classify(b"\0")];
        assert_eq!(format!("{all:?}"), "[Blank, Conf, Torn, Conf]");
    }

    // Promise: a block of which only some sectors are new is not taken for either device's, wherever the sector
    // boundaries are.
    #[test]
    fn a_torn_block_is_no_device() {
        let other = [CONF, b"AZAION_DEVICE_SERIAL=AZJN-1\n"].concat();
        let blocks = [blank(), block_of(CONF).unwrap().to_vec(), block_of(&other).unwrap().to_vec()];
        for (old, new) in [(0, 1), (1, 2), (2, 1), (1, 0), (0, 2)] {
            for edge in 1..SIZE {
                for (first, second) in [(old, new), (new, old)] {
                    let torn = [&blocks[first][..edge], &blocks[second][edge..]].concat();
                    let whole = blocks.contains(&torn);
                    // A checksum line may be accepted only with the complete text of its device.
                    let is_good = matches!(classify(&torn), Content::Conf(_) | Content::Blank);
                    assert_eq!(is_good, whole, "{edge}: {}", String::from_utf8_lossy(&torn));
                }
            }
        }
    }

    // Promise: a block of which only some sectors, whichever, have the confirmation comment is still the device's.
    #[test]
    fn a_torn_confirmation_loses_the_comment_only() {
        for size in [1, 420, 470, 4000] {
            let text = [CONF, b"#", vec![b'x'; size].as_slice()].concat();
            let Ok(confirmed) = with_confirmation(&text) else { continue };
            let blocks = [block_of(&text), block_of(confirmed.expose_secret().as_bytes())].map(Result::unwrap);
            for edge in 0..=SIZE {
                for (first, second) in [(0, 1), (1, 0)] {
                    let torn = [&blocks[first][..edge], &blocks[second][edge..]].concat();
                    let Content::Conf(conf) = classify(&torn) else { panic!("{size} {edge} {first}") };
                    assert_eq!(without_confirmation(&conf), text, "{size} {edge} {first}");
                    assert_eq!(is_confirmed(&conf), torn == *blocks[1], "{size} {edge} {first}");
                }
            }
        }
    }

    // Promise: a file that this program did not make is read unchanged, even if it is not text, and survives a round
    // trip through a slot; in a block that is known to be a slot, content that is neither this program's nor text is an
    // interrupted write.
    #[test]
    fn foreign_files_are_read_unchanged() {
        assert_eq!(classify(b""), Content::Blank);
        let elf = b"\x7fELF\x02\x01\n";
        for file in [CONF, elf, b"A=1\0\0\n", b"\xef\xbb\xbfA=1\n", b"A=1\r\nB=2\n", b"\xff\xfe\n", &[0; 400]] {
            let conf = Content::Conf(Zeroizing::new(file.to_vec()));
            assert_eq!(classify(file), conf, "{file:?}");
            let block = block_of(file).unwrap();
            let Content::Conf(again) = classify_own(&block) else { panic!("{file:?}") };
            assert_eq!(again.trim_ascii_end(), file.trim_ascii_end());
        }
        assert_eq!(classify_own(elf), Content::Torn);
        assert_eq!(classify_own(CONF), Content::Conf(Zeroizing::new(CONF.to_vec())));
    }
}
