//! Decides whether a `device.conf` that was found in a target is used again: it must be this device's, and this tool must have been
//! able to write it. Otherwise a user who can put a file into a target would choose the password of the device's account.

use azaion_agent::api::url::ApiUrl;
use azaion_agent::common::device_conf::{DeviceConf, MODE};
use azaion_agent::common::exit::Exit;
use azaion_agent::common::identity::{Serial, is_assigned_serial, is_generated_password};

use crate::error::{Error, Result, failure};
use crate::strict_modes::is_caller;
use crate::target::{Found, Kind, Owner, Target};

/// What a file says, if it is this device's; none if it may be replaced.
pub(crate) fn ours(target: &dyn Target, found: &Found, serial: &Serial, replace: bool) -> Result<Option<DeviceConf>> {
    let Some(conf) = readable(target, found, replace)? else { return Ok(None) };
    if conf.is_of(serial) {
        return Ok(Some(conf));
    }
    if replace {
        return Ok(None);
    }
    Err(taken(target, &conf, "clear it once that unit is flashed, or give --replace"))
}

/// What a file says, if an identity that the server made may be in it; none if it may be replaced.
pub(crate) fn assigned(
    target: &dyn Target,
    found: &Found,
    owner: Owner,
    api: &ApiUrl,
    replace: bool,
) -> Result<Option<DeviceConf>> {
    let Some(conf) = readable(target, found, replace)? else { return Ok(None) };
    let identity = conf.identity();
    // The form of a password that the server has made is the server's own; whether it is right, a login tells.
    let is_assigned = identity.as_ref().is_some_and(|identity| is_assigned_serial(&identity.serial));
    let of_form = if is_assigned { None } else { form_objection(&conf) };
    let objection = of_form
        .or_else(|| file_objection(target.kind(), found, &conf, owner, api))
        .or(identity.is_none().then_some("no serial"));
    match objection {
        None => Ok(Some(conf)),
        Some(_) if replace => Ok(None),
        Some(why) => {
            let advice = format!("which this tool has not written ({why}); clear it, or give --replace");
            Err(taken(target, &conf, &advice))
        }
    }
}

fn readable(target: &dyn Target, found: &Found, replace: bool) -> Result<Option<DeviceConf>> {
    match found.conf(target.path()) {
        Ok(conf) => Ok(Some(conf)),
        Err(_) if replace => Ok(None),
        Err(error) => Err(Error::from(error).context(
            "the target holds a device.conf that can't be read; see whose it is, then clear it or give --replace",
        )),
    }
}

fn taken(target: &dyn Target, conf: &DeviceConf, advice: &str) -> Error {
    let (path, other) = (target.path().display(), conf.whose());
    failure(Exit::Exists, format!("{path} holds the device.conf of {other}; {advice}"))
}

/// Why this tool can't have written a file for this API, if it can't.
pub(crate) fn objection(
    kind: Kind,
    found: &Found,
    conf: &DeviceConf,
    owner: Owner,
    api: &ApiUrl,
) -> Option<&'static str> {
    form_objection(conf).or_else(|| file_objection(kind, found, conf, owner, api))
}

fn form_objection(conf: &DeviceConf) -> Option<&'static str> {
    (!is_generated_password(&conf.password)).then_some("a password of another form")
}

fn file_objection(kind: Kind, found: &Found, conf: &DeviceConf, owner: Owner, api: &ApiUrl) -> Option<&'static str> {
    if found.mode != MODE {
        return Some("another mode than 0600");
    }
    if !has_right_owner(kind, found, owner) {
        return Some("another owner");
    }
    (conf.api_url != *api).then_some("another API")
}

/// In images it is root, by number. With `--owner current`, root and the user who called sudo come to the same tree in turns.
fn has_right_owner(kind: Kind, found: &Found, owner: Owner) -> bool {
    let is_roots = (found.uid, found.gid) == (0, 0);
    if kind != Kind::Directory || is_roots {
        return is_roots;
    }
    // With `--owner root`, a file of root's has root's group as well.
    is_caller(found.uid) && (owner == Owner::Current || found.uid != 0)
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::*;

    // Promise: only what this tool could have written for this API is used again.
    #[test]
    fn what_is_adopted() {
        let good = "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6";
        let nobody = 65_534;
        let classify = |kind, password: &str, mode, uid, gid, api: &str| {
            let text = format!(
                "AZAION_DEVICE_EMAIL=d@azaion.com\nAZAION_DEVICE_PASSWORD={password}\nAZAION_API_URL=https://a.example\n"
            );
            let found = Found { bytes: Zeroizing::new(text.into_bytes()), mode, uid, gid };
            let conf = found.conf(std::path::Path::new("t")).unwrap();
            objection(kind, &found, &conf, Owner::Root, &api.parse().unwrap())
        };
        let api = "https://a.example";
        for kind in [Kind::Directory, Kind::Ext4] {
            assert_eq!(classify(kind, good, 0o600, 0, 0, api), None);
            for password in ["attacker", &good[1..], &format!("{good}x"), &good.replace('a', "-")] {
                assert_eq!(
                    classify(kind, password, 0o600, 0, 0, api),
                    Some("a password of another form"),
                    "{password}"
                );
            }
            for mode in [0o644, 0o640, 0o400, 0o4600] {
                assert_eq!(classify(kind, good, mode, 0, 0, api), Some("another mode than 0600"), "{mode:o}");
            }
            for (uid, gid) in [(nobody, 0), (0, nobody), (nobody, nobody)] {
                assert_eq!(classify(kind, good, 0o600, uid, gid, api), Some("another owner"), "{uid}:{gid}");
            }
            assert_eq!(classify(kind, good, 0o600, 0, 0, "https://b.example"), Some("another API"));
        }
    }
}
