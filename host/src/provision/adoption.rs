//! Decides whether an existing `device.conf` in a target is reused: it must belong to this device and have the form that this tool
//! writes. Otherwise a user who can put a file into a target could choose the password of the device's account.

use azaion_agent::api::url::ApiUrl;
use azaion_agent::common::device_conf::{DeviceConf, MODE};
use azaion_agent::common::exit::Exit;
use azaion_agent::common::identity::{Serial, is_assigned_serial, is_generated_password};

use crate::error::{Error, Result, failure};
use crate::strict_modes::is_caller;
use crate::target::{Found, Kind, Owner, Target};

/// Returns the content of a file that belongs to the device with this serial; `None` if the file may be replaced.
pub(crate) fn ours(target: &dyn Target, found: &Found, serial: &Serial, replace: bool) -> Result<Option<DeviceConf>> {
    let Some(conf) = readable(target, found, replace)? else { return Ok(None) };
    if conf.is_of(serial) {
        return Ok(Some(conf));
    }
    if replace {
        return Ok(None);
    }
    Err(taken(target, &conf, "clear it after that device is flashed, or use --replace"))
}

/// Returns the content of a file that may have an identity created by the server; `None` if the file may be replaced.
pub(crate) fn assigned(
    target: &dyn Target,
    found: &Found,
    owner: Owner,
    api: &ApiUrl,
    replace: bool,
) -> Result<Option<DeviceConf>> {
    let Some(conf) = readable(target, found, replace)? else { return Ok(None) };
    let identity = conf.identity();
    // The server's passwords have another form; a login checks them.
    let is_assigned = identity.as_ref().is_some_and(|identity| is_assigned_serial(&identity.serial));
    let form = if is_assigned { None } else { form_objection(&conf) };
    let objection = form
        .or_else(|| file_objection(target.kind(), found, &conf, owner, api))
        .or(identity.is_none().then_some("it has no serial"));
    match objection {
        None => Ok(Some(conf)),
        Some(_) if replace => Ok(None),
        Some(why) => {
            let advice = format!("this tool did not write it ({why}); clear it, or use --replace");
            Err(taken(target, &conf, &advice))
        }
    }
}

fn readable(target: &dyn Target, found: &Found, replace: bool) -> Result<Option<DeviceConf>> {
    match found.conf(target.path()) {
        Ok(conf) => Ok(Some(conf)),
        Err(_) if replace => Ok(None),
        Err(error) => Err(Error::from(error).context(
            "the target holds a device.conf that can't be read; check whose it is, then clear it or use --replace",
        )),
    }
}

fn taken(target: &dyn Target, conf: &DeviceConf, advice: &str) -> Error {
    let (path, other) = (target.path().display(), conf.whose());
    failure(Exit::Exists, format!("{path} holds the device.conf of {other}; {advice}"))
}

/// Returns why this tool can't have written a file for this API; `None` if it may have.
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
    (!is_generated_password(&conf.password)).then_some("its password has another form")
}

fn file_objection(kind: Kind, found: &Found, conf: &DeviceConf, owner: Owner, api: &ApiUrl) -> Option<&'static str> {
    if found.mode != MODE {
        return Some("its mode is not 0600");
    }
    if !has_right_owner(kind, found, owner) {
        return Some("it has another owner");
    }
    (conf.api_url != *api).then_some("it is for another API")
}

/// Returns whether a file has an owner that this tool writes. In images that is 0:0. With `--owner current`, root and the sudo user may
/// provision the same tree in turns.
fn has_right_owner(kind: Kind, found: &Found, owner: Owner) -> bool {
    let is_root = (found.uid, found.gid) == (0, 0);
    if kind != Kind::Directory || is_root {
        return is_root;
    }
    // With `--owner root`, root's files also have root's group.
    is_caller(found.uid) && (owner == Owner::Current || found.uid != 0)
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::*;

    // Promise: only a file that this tool could have written for this API is reused.
    #[test]
    fn only_own_files_are_reused() {
        let good = "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6";
        let nobody = 65_534;
        let objection_to = |kind, password: &str, mode, uid, gid, api: &str| {
            let text = format!(
                "AZAION_DEVICE_EMAIL=d@azaion.com\nAZAION_DEVICE_PASSWORD={password}\nAZAION_API_URL=https://a.example\n"
            );
            let found = Found { bytes: Zeroizing::new(text.into_bytes()), mode, uid, gid };
            let conf = found.conf(std::path::Path::new("t")).unwrap();
            objection(kind, &found, &conf, Owner::Root, &api.parse().unwrap())
        };
        let api = "https://a.example";
        for kind in [Kind::Directory, Kind::Ext4] {
            assert_eq!(objection_to(kind, good, 0o600, 0, 0, api), None);
            for password in ["attacker", &good[1..], &format!("{good}x"), &good.replace('a', "-")] {
                assert_eq!(
                    objection_to(kind, password, 0o600, 0, 0, api),
                    Some("its password has another form"),
                    "{password}"
                );
            }
            for mode in [0o644, 0o640, 0o400, 0o4600] {
                assert_eq!(objection_to(kind, good, mode, 0, 0, api), Some("its mode is not 0600"), "{mode:o}");
            }
            for (uid, gid) in [(nobody, 0), (0, nobody), (nobody, nobody)] {
                assert_eq!(objection_to(kind, good, 0o600, uid, gid, api), Some("it has another owner"), "{uid}:{gid}");
            }
            assert_eq!(objection_to(kind, good, 0o600, 0, 0, "https://b.example"), Some("it is for another API"));
        }
    }
}
