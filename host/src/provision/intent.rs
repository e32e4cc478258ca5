//! The intent of `--server-assigned`, in the place of a `device.conf`: the API was asked for an identity, and its answer has not been
//! written yet. Whoever finds it knows that a user may be left on the API that no device has.
//!
//! It is a comment, so that nobody takes it for an identity: the agent says that the e-mail is missing.

use azaion_agent::api::url::ApiUrl;
use azaion_agent::common::clock::Timestamp;
use azaion_agent::common::plain_text::escaped;
use secrecy::SecretString;

use crate::target::{Found, Target};

const START: &str = "# azaion-provision: asked for an identity at ";

/// The text of it.
pub(crate) fn intent(api: &ApiUrl, now: Timestamp) -> SecretString {
    SecretString::from(format!("{START}{now} from {api}\n"))
}

/// Whether this is all that is in a file.
pub(crate) fn is_intent(text: &[u8]) -> bool {
    rest(text).is_some()
}

/// When the API was asked, and which.
fn rest(text: &[u8]) -> Option<&str> {
    let line = std::str::from_utf8(text).ok()?.trim_end();
    line.strip_prefix(START).filter(|rest| !rest.contains('\n'))
}

/// When the API was asked.
pub(crate) fn asked_at(text: &[u8]) -> Option<Timestamp> {
    rest(text)?.split(' ').next()?.parse().ok()
}

/// A `device.conf` that was found; none where it is such an intent, of which people are told.
pub(crate) fn filter_intent<'f>(target: &dyn Target, found: Option<&'f Found>) -> Option<&'f Found> {
    let found = found?;
    let Some(message) = message(target, found) else { return Some(found) };
    log::warn!("{message}");
    None
}

/// What people are told of an intent, where it is one.
pub(crate) fn message(target: &dyn Target, found: &Found) -> Option<String> {
    let when = rest(&found.bytes)?;
    Some(format!(
        "{}: a run was ended between asking for an identity and writing it ({}); the API may have a user that no device has (an orphaned \
         account), an azj-… of about that time; if it is no device of yours, delete it there",
        target.path().display(),
        escaped(when)
    ))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use azaion_agent::common::device_conf::DeviceConf;
    use secrecy::ExposeSecret;

    use super::*;

    // Promise: an intent is told from any `device.conf`, and nobody takes it for an identity.
    #[test]
    fn an_intent_is_no_identity() {
        let api = "https://a.example".parse().unwrap();
        let intent = intent(&api, Timestamp::from_unix(1_777_802_400));
        let text = intent.expose_secret();
        assert_eq!(text, "# azaion-provision: asked for an identity at 2026-05-03T10:00:00Z from https://a.example\n");
        assert!(is_intent(text.as_bytes()) && is_intent(text.trim_end().as_bytes()));
        assert_eq!(asked_at(text.as_bytes()), Some(Timestamp::from_unix(1_777_802_400)));
        let error = DeviceConf::parse(text.as_bytes(), Path::new("device.conf")).unwrap_err();
        assert!(error.problem.to_string().contains("does not set AZAION_DEVICE_EMAIL"), "{error:?}");
        let conf = format!("{text}AZAION_DEVICE_EMAIL=d@azaion.com\n");
        for other in ["", "\n", "# azaion-provision: the API takes this password\n", &conf] {
            assert!(!is_intent(other.as_bytes()), "{other}");
        }
    }
}
