//! A comment in a `device.conf`, by which a batch that is run again knows the units that are done: to find it out by a
//! login each would take hours, since the API allows ten a minute.
//!
//! It stands in the file that it is about: whoever writes another password writes a file without it.

use azaion_agent::device_conf::LARGEST;
use azaion_agent::exit::Exit;
use secrecy::SecretString;
use zeroize::Zeroizing;

use crate::failure::failure;

const MARK: &str = "# azaion-provision: the API takes this password";

/// Whether there is a mark in the text of a file.
pub(crate) fn is_marked(text: &[u8]) -> bool {
    text.split(|&byte| byte == b'\n').any(|line| line == MARK.as_bytes())
}

/// The same text with a mark at its end.
///
/// # Errors
/// It is no text, or has no room for it.
pub(crate) fn with_mark(text: &[u8]) -> anyhow::Result<SecretString> {
    let fail = |why| failure(Exit::Data, format!("the device.conf {why}"));
    let text = std::str::from_utf8(text).map_err(|_| fail("is not UTF-8"))?;
    let mut marked = Zeroizing::new(String::with_capacity(LARGEST));
    for part in [text.trim_end_matches('\n'), "\n", MARK, "\n"] {
        if marked.len() + part.len() > LARGEST {
            return Err(fail("has no room for a mark"));
        }
        marked.push_str(part);
    }
    Ok(SecretString::from(marked.as_str()))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use azaion_agent::device_conf::DeviceConf;
    use secrecy::ExposeSecret;

    use super::*;

    const CONF: &str = "AZAION_DEVICE_EMAIL=d@azaion.com\nAZAION_DEVICE_PASSWORD=p\nAZAION_API_URL=https://a.example\n";

    // Promise: a file with a mark says the same as without, and one that is written anew has none.
    #[test]
    fn a_mark_is_a_comment() {
        let marked = with_mark(CONF.as_bytes()).unwrap();
        assert!(is_marked(marked.expose_secret().as_bytes()) && !is_marked(CONF.as_bytes()));
        let conf = DeviceConf::parse(marked.expose_secret().as_bytes(), Path::new("device.conf")).unwrap();
        let again = conf.render();
        assert_eq!(again.expose_secret(), CONF);
        assert!(!is_marked(again.expose_secret().as_bytes()));
    }

    // Promise: a file never gets larger by its mark than one may be.
    #[test]
    fn there_must_be_room() {
        let room = LARGEST - MARK.len() - 2;
        for (length, fits) in [(room, true), (room + 1, false), (LARGEST, false)] {
            let marked = with_mark(&vec![b'#'; length]);
            assert_eq!(marked.map(|text| text.expose_secret().len()).ok(), fits.then_some(LARGEST), "{length}");
        }
    }
}
