//! What is in the slot: one block of text, whichever device it is for.
//!
//! The first line says what to expect, so that a block of which a power cut left one half is told from a good one:
//! nobody has used its password yet, for the API is asked after the block is written. The rest is newlines, never one
//! 32-bit word all over: a sparse image would fold that into a chunk without a place of its own.
//!
//! The mark of a batch is not part of what the first line says: it is written when the password is in use, and a power cut
//! then must not cost more than the mark.

use std::fmt;

use sha1::{Digest, Sha1};
use zeroize::Zeroizing;

use super::medium::BLOCK_BYTES;
use crate::target::confirmation::{is_confirmed, without_confirmation};
use crate::target::error::{Error, Result};

/// Bytes of the slot: one block.
pub(super) const SIZE: usize = BLOCK_BYTES;
/// A slot without a device.
const BLANK: &str = "# azaion-provision: no device yet\n";
/// Starts the first line of a slot with a device; the hash of its text follows.
const SEAL: &str = "# azaion-provision: sha1 of what follows ";
/// Starts both.
const OURS: &[u8] = b"# azaion-provision:";

/// What a slot holds.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Content {
    /// No device.
    Blank,
    /// A `device.conf`, or whatever others have put in its place.
    Conf(Zeroizing<Vec<u8>>),
    /// The half of one.
    Torn,
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Blank => "Blank",
            // Without the password in it.
            Self::Conf(_) => "Conf",
            Self::Torn => "Torn",
        })
    }
}

/// The block for a text. The text of others may be too long for the seal, but ours is not.
///
/// # Errors
/// There is no room for it at all.
pub(super) fn block_of(text: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
    let text = text.trim_ascii_end();
    let seal = format!("{SEAL}{}\n", hash(without_confirmation(text)));
    if seal.len() + text.len() < SIZE {
        return Ok(padded(&[seal.as_bytes(), text]));
    }
    if text.len() > SIZE {
        return Err(Error::TooLarge);
    }
    Ok(padded(&[text]))
}

/// A block that begins with these texts, which fit.
fn padded(texts: &[&[u8]]) -> Zeroizing<Vec<u8>> {
    let mut block = Zeroizing::new(Vec::with_capacity(SIZE));
    for text in texts {
        block.extend_from_slice(text);
    }
    block.resize(SIZE, b'\n');
    block
}

/// The block of a slot without a device.
pub(super) fn blank() -> Vec<u8> {
    let mut block = BLANK.as_bytes().to_vec();
    block.resize(SIZE, b'\n');
    block
}

/// A text without the white space at its end, most of which a slot is.
fn trimmed(mut text: &[u8]) -> &[u8] {
    while let Some(rest) = text.strip_suffix(&[b'\n'; 64]) {
        text = rest;
    }
    text.trim_ascii_end()
}

/// Whether a block starts as a slot does.
pub(super) fn is_ours(block: &[u8]) -> bool {
    block.starts_with(OURS)
}

/// What a block is that certainly is a slot.
pub(super) fn classify_own(block: &[u8]) -> Content {
    match classify(block) {
        Content::Conf(conf) if !is_ours(block) && !is_text(&conf) => Content::Torn,
        content => content,
    }
}

/// What the bytes of the file are.
pub(super) fn classify(bytes: &[u8]) -> Content {
    let text = trimmed(bytes);
    // A shorter file, made by others, may have had room for a part of it only.
    if BLANK.as_bytes().starts_with(text) {
        return Content::Blank;
    }
    if text.starts_with(BLANK.as_bytes()) {
        return Content::Torn;
    }
    if let Some(rest) = text.strip_prefix(SEAL.as_bytes()) {
        let (sealed, conf) = rest.split_at_checked(40).unwrap_or((rest, b""));
        let conf = conf.strip_prefix(b"\n").unwrap_or_default();
        let bare = without_confirmation(conf);
        // Versions of November 2026 up to the 26th had the comment in the checksum.
        if hash(bare).as_bytes() != sealed && hash(conf).as_bytes() != sealed {
            return Content::Torn;
        }
        return conf_of(if is_confirmed(conf) { conf.trim_ascii_start() } else { bare }, b"\n");
    }
    // One newline is the end of the last line.
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

    // Promise: what is put in comes out, and no block repeats one 32-bit word.
    #[test]
    fn comes_out_as_it_went_in() {
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

    // Promise: whatever has room for the seal has one, and a newline behind its last line; the rest goes without.
    #[test]
    fn sealed_as_long_as_there_is_room() {
        let most = SIZE - SEAL.len() - 40 - 1 - 1;
        for (size, is_sealed) in [(0, true), (1, true), (most, true), (most + 1, false), (SIZE, false)] {
            let block = block_of(&vec![b'#'; size]).unwrap();
            assert_eq!(block.starts_with(SEAL.as_bytes()), is_sealed, "{size}");
            assert!(!is_sealed || block.ends_with(b"\n"), "{size}");
        }
    }

    // Promise: what is printed of a slot says what kind it is, and nothing of the text in it.
    #[test]
    fn prints_no_text() {
        let all = [classify(b""), classify(CONF), classify(SEAL.as_bytes()), classify(b"\0")];
        assert_eq!(format!("{all:?}"), "[Blank, Conf, Torn, Conf]");
    }

    // Promise: a block of which only some sectors are new is told from either device's, wherever the sectors' edges are.
    #[test]
    fn a_torn_block_is_no_device() {
        let other = [CONF, b"AZAION_DEVICE_SERIAL=AZJN-1\n"].concat();
        let blocks = [blank(), block_of(CONF).unwrap().to_vec(), block_of(&other).unwrap().to_vec()];
        for (old, new) in [(0, 1), (1, 2), (2, 1), (1, 0), (0, 2)] {
            for edge in 1..SIZE {
                for (first, second) in [(old, new), (new, old)] {
                    let torn = [&blocks[first][..edge], &blocks[second][edge..]].concat();
                    let whole = blocks.contains(&torn);
                    // Only the seal of a device whose text is all there may be believed.
                    let is_good = matches!(classify(&torn), Content::Conf(_) | Content::Blank);
                    assert_eq!(is_good, whole, "{edge}: {}", String::from_utf8_lossy(&torn));
                }
            }
        }
    }

    // Promise: a block of which only some sectors have the mark, whichever, is still the device's.
    #[test]
    fn a_torn_mark_costs_the_mark_alone() {
        for size in [1, 420, 470, 4000] {
            let text = [CONF, b"#", vec![b'x'; size].as_slice()].concat();
            let Ok(marked) = with_confirmation(&text) else { continue };
            let blocks = [block_of(&text), block_of(marked.expose_secret().as_bytes())].map(Result::unwrap);
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

    // Promise: a file that others made is read as it is, also one that is no text, and comes out of a slot as it went in; in a block
    // that certainly is a slot, what is neither ours nor text is what a power cut left.
    #[test]
    fn files_of_others() {
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
