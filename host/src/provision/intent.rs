//! The intent of `--server-assigned`, a file in place of `device.conf`: an identity was requested from the API, and the response has not
//! been written yet. A run that finds it knows that the API may have an orphaned account, which no device has.
//!
//! It is a comment, so no program takes it for an identity: the agent reports that the e-mail is missing.

use azaion_agent::api::url::ApiUrl;
use azaion_agent::common::clock::Timestamp;
use azaion_agent::common::plain_text::escaped;
use secrecy::SecretString;

use crate::target::{Found, Target};

const START: &str = "# azaion-provision: asked for an identity at ";

/// Returns the text of an intent.
pub(crate) fn intent(api: &ApiUrl, now: Timestamp) -> SecretString {
    SecretString::from(format!("{START}{now} from {api}\n"))
}

/// Returns whether a file is an intent and nothing else.
pub(crate) fn is_intent(text: &[u8]) -> bool {
    request_text(text).is_some()
}

/// Returns the time of the request and the API.
fn request_text(text: &[u8]) -> Option<&str> {
    let line = std::str::from_utf8(text).ok()?.trim_end();
    line.strip_prefix(START).filter(|rest| !rest.contains('\n'))
}

/// Returns the time of the request.
pub(crate) fn asked_at(text: &[u8]) -> Option<Timestamp> {
    request_text(text)?.split(' ').next()?.parse().ok()
}

/// Returns a file unless it is an intent; logs a warning for an intent.
pub(crate) fn filter_intent<'f>(target: &dyn Target, found: Option<&'f Found>) -> Option<&'f Found> {
    let found = found?;
    let Some(message) = message(target, found) else { return Some(found) };
    log::warn!("{message}");
    None
}

/// Returns the warning about an intent, if the file is one.
pub(crate) fn message(target: &dyn Target, found: &Found) -> Option<String> {
    let when = request_text(&found.bytes)?;
    Some(format!(
        "{}: an earlier run ended between requesting an identity and writing it ({}); the API may have an orphaned \
         account (no device has its password), an azj-… created at about that time; if it belongs to no device \
         of yours, delete it on the API",
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

    // Promise: an intent is distinguished from any `device.conf`, and is never taken for an identity.
    #[test]
    fn an_intent_is_not_an_identity() {
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
