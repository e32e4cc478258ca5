//! A comment in a `device.conf`, by which a batch that is run again knows the units that are done: to find it out by a
//! login each would take hours, since the API allows ten a minute.
//!
//! It stands in the file that it is about: whoever writes another password writes a file without it.

use azaion_agent::common::device_conf::LARGEST;
use secrecy::SecretString;
use zeroize::Zeroizing;

const MARK: &str = "# azaion-provision: the API takes this password";

/// Whether there is a mark in the text of a file.
pub(crate) fn is_confirmed(text: &[u8]) -> bool {
    text.split(|&byte| byte == b'\n').any(|line| line == MARK.as_bytes())
}

/// The text without the mark at its end, if there is one, or a piece of one that a power cut has left.
pub(crate) fn without_confirmation(text: &[u8]) -> &[u8] {
    let text = text.trim_ascii_end();
    let (before, line) = match text.iter().rposition(|&byte| byte == b'\n') {
        Some(end) => text.split_at(end),
        None => (&b""[..], text),
    };
    let line = line.trim_ascii_start();
    let is_piece = !line.is_empty() && MARK.as_bytes().windows(line.len()).any(|piece| piece == line);
    if is_piece { before.trim_ascii_end() } else { text }
}

/// The same text with a mark at its end.
///
/// # Errors
/// It is no text, or would be longer than a `device.conf` may be.
pub(crate) fn with_confirmation(text: &[u8]) -> Result<SecretString, &'static str> {
    let text = std::str::from_utf8(text.trim_ascii_end()).map_err(|_| "is not UTF-8")?;
    let mut marked = Zeroizing::new(String::with_capacity(text.len() + MARK.len() + 2));
    for part in [text, "\n", MARK, "\n"] {
        if marked.len() + part.len() > LARGEST {
            return Err("has no room for a confirmation comment");
        }
        marked.push_str(part);
    }
    Ok(SecretString::from(marked.as_str()))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use azaion_agent::common::device_conf::DeviceConf;
    use secrecy::ExposeSecret;

    use super::*;

    const CONF: &str = "AZAION_DEVICE_EMAIL=d@azaion.com\nAZAION_DEVICE_PASSWORD=p\nAZAION_API_URL=https://a.example\n";

    // Promise: a file with a mark says the same as without, and one that is written anew has none.
    #[test]
    fn a_mark_is_a_comment() {
        let marked = with_confirmation(CONF.as_bytes()).unwrap();
        assert!(is_confirmed(marked.expose_secret().as_bytes()) && !is_confirmed(CONF.as_bytes()));
        let conf = DeviceConf::parse(marked.expose_secret().as_bytes(), Path::new("device.conf")).unwrap();
        let again = conf.render();
        assert_eq!(again.expose_secret(), CONF);
        assert!(!is_confirmed(again.expose_secret().as_bytes()));
    }

    // Promise: the mark at the end of a text is told from the text, whole or in pieces; and from a comment elsewhere.
    #[test]
    fn a_mark_may_be_taken_off() {
        let marked = with_confirmation(CONF.as_bytes()).unwrap();
        let (text, bare) = (marked.expose_secret().as_bytes(), CONF.trim_end().as_bytes());
        for length in bare.len()..=text.len() {
            assert_eq!(without_confirmation(&text[..length]), bare, "{length}");
        }
        assert_eq!(without_confirmation(&[bare, b"\n\n\n", &MARK.as_bytes()[7..]].concat()), bare);
        for other in ["", "# something else", "# azaion-provision: the API takes this password, too"] {
            let other = [text, other.as_bytes()].concat();
            assert_eq!(without_confirmation(&other) == bare, other == text, "{}", String::from_utf8_lossy(&other));
        }
        assert_eq!((without_confirmation(b""), without_confirmation(MARK.as_bytes())), (&b""[..], &b""[..]));
    }

    // Promise: a file never gets larger by its mark than one may be.
    #[test]
    fn there_must_be_room() {
        let room = LARGEST - MARK.len() - 2;
        for (length, fits) in [(room, true), (room + 1, false), (LARGEST, false)] {
            let marked = with_confirmation(&vec![b'#'; length]);
            assert_eq!(marked.map(|text| text.expose_secret().len()).ok(), fits.then_some(LARGEST), "{length}");
        }
    }
}
