//! The confirmation comment in a `device.conf`: it records that the API has accepted the password in this file.
//!
//! A batch that is run rendered skips the devices whose file has the comment. Checking each of them by a login would take hours,
//! because the API allows ten logins a minute. The comment is in the file that it confirms, so writing another password
//! removes it.

use azaion_agent::common::device_conf::LARGEST;
use secrecy::SecretString;
use zeroize::Zeroizing;

const COMMENT: &str = "# azaion-provision: the API takes this password";

/// Returns whether a `device.conf` contains the confirmation comment.
pub(crate) fn is_confirmed(text: &[u8]) -> bool {
    text.split(|&byte| byte == b'\n').any(|line| line == COMMENT.as_bytes())
}

/// Returns the text without a confirmation comment at its end, or without the part of one that a power cut has left.
pub(crate) fn without_confirmation(text: &[u8]) -> &[u8] {
    let text = text.trim_ascii_end();
    let (before, line) = match text.iter().rposition(|&byte| byte == b'\n') {
        Some(end) => text.split_at(end),
        None => (&b""[..], text),
    };
    let line = line.trim_ascii_start();
    let is_part = !line.is_empty() && COMMENT.as_bytes().windows(line.len()).any(|part| part == line);
    if is_part { before.trim_ascii_end() } else { text }
}

/// Returns the text with the confirmation comment at its end.
///
/// # Errors
/// The reason, as the predicate of a sentence: the text is not UTF-8, or the result would be larger than a `device.conf` may be.
pub(crate) fn with_confirmation(text: &[u8]) -> Result<SecretString, &'static str> {
    let text = std::str::from_utf8(text.trim_ascii_end()).map_err(|_| "is not UTF-8")?;
    let mut confirmed = Zeroizing::new(String::with_capacity(text.len() + COMMENT.len() + 2));
    for part in [text, "\n", COMMENT, "\n"] {
        if confirmed.len() + part.len() > LARGEST {
            return Err("would exceed 4096 bytes with a confirmation comment");
        }
        confirmed.push_str(part);
    }
    Ok(SecretString::from(confirmed.as_str()))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use azaion_agent::common::device_conf::DeviceConf;
    use secrecy::ExposeSecret;

    use super::*;

    const CONF: &str = "AZAION_DEVICE_EMAIL=d@azaion.com\nAZAION_DEVICE_PASSWORD=p\nAZAION_API_URL=https://a.example\n";

    // Promise: the confirmation comment does not change the settings, and a newly rendered file has none.
    #[test]
    fn the_confirmation_is_a_comment() {
        let confirmed = with_confirmation(CONF.as_bytes()).unwrap();
        assert!(is_confirmed(confirmed.expose_secret().as_bytes()) && !is_confirmed(CONF.as_bytes()));
        let conf = DeviceConf::parse(confirmed.expose_secret().as_bytes(), Path::new("device.conf")).unwrap();
        let rendered = conf.render();
        assert_eq!(rendered.expose_secret(), CONF);
        assert!(!is_confirmed(rendered.expose_secret().as_bytes()));
    }

    // Promise: a confirmation comment at the end of a text is removed, also if only a part of it is there; other comments stay.
    #[test]
    fn the_confirmation_can_be_removed() {
        let confirmed = with_confirmation(CONF.as_bytes()).unwrap();
        let (text, bare) = (confirmed.expose_secret().as_bytes(), CONF.trim_end().as_bytes());
        for length in bare.len()..=text.len() {
            assert_eq!(without_confirmation(&text[..length]), bare, "{length}");
        }
        assert_eq!(without_confirmation(&[bare, b"\n\n\n", &COMMENT.as_bytes()[7..]].concat()), bare);
        for other in ["", "# something else", "# azaion-provision: the API takes this password, too"] {
            let other = [text, other.as_bytes()].concat();
            assert_eq!(without_confirmation(&other) == bare, other == text, "{}", String::from_utf8_lossy(&other));
        }
        assert_eq!((without_confirmation(b""), without_confirmation(COMMENT.as_bytes())), (&b""[..], &b""[..]));
    }

    // Promise: the confirmation comment never makes a file larger than a device.conf may be.
    #[test]
    fn a_full_file_takes_no_confirmation() {
        let limit = LARGEST - COMMENT.len() - 2;
        for (length, fits) in [(limit, true), (limit + 1, false), (LARGEST, false)] {
            let confirmed = with_confirmation(&vec![b'#'; length]);
            assert_eq!(confirmed.map(|text| text.expose_secret().len()).ok(), fits.then_some(LARGEST), "{length}");
        }
    }
}
