//! `azaion-provision check`: checks the prerequisites, before a shift starts with the first device.

pub(crate) mod flash_cfg;
mod image;

use std::path::{Path, PathBuf};

use azaion_agent::api::http::ApiClient;
use azaion_agent::api::keys;
use azaion_agent::api::retry::Budget;
use azaion_agent::api::token::Keys;
use azaion_agent::common::check::{Check, print};
use azaion_agent::common::exit::Exit;
use nix::unistd::geteuid;

use crate::admin_api::Admin;
use crate::admin_api::connection;
use crate::admin_api::login::AdminLogin;
use crate::cli::CheckOptions;
use crate::error::{Error, Result, io_failure};
use crate::interrupt::InterruptibleClock;
use crate::provision::intent;
use crate::target::{self, Owner, Target};

const PRIVILEGES: &str = "privileges";
const TARGET: &str = "target";
const API: &str = "api";
const ADMIN_LOGIN: &str = "admin-login";
/// Ids of all checks.
#[cfg(feature = "schema")]
pub(crate) const IDS: [&str; 7] =
    [PRIVILEGES, TARGET, image::CONTENT, image::ZSTD, image::FLASH_CONFIG, API, ADMIN_LOGIN];

/// Prints one line per check. Returns the first exit code with which `device` would fail.
#[expect(clippy::disallowed_methods, reason = "the result is only used in messages")]
pub(crate) fn run(options: &CheckOptions, json: bool) -> Result<Exit> {
    let clock = InterruptibleClock;
    let budget = connection::budget(&options.api, connection::USUAL_DEADLINE, &clock);
    let url = connection::api_url(&options.api)?;
    // Images need no root: files in them belong to 0:0 anyway.
    let is_image = |path: &PathBuf| path.is_file();
    let only_images = !options.rootfs.is_empty() && options.rootfs.iter().all(is_image);
    let mut results = vec![if only_images { images_only() } else { privileges(options.owner.owner) }];
    results.extend(options.rootfs.iter().flat_map(|path| target(path, options.owner.owner)));
    match connection::http(&url, &options.api) {
        Ok(http) => {
            // Prompts for the password before the first request, like all commands.
            let login = AdminLogin::new(&options.api, &InterruptibleClock);
            let is_prepared = login.prepare();
            results.push(api(&http, &budget));
            results.push(admin_login(is_prepared, &Admin::new(&http, &budget, &login)));
        }
        Err(error) => {
            results.push(failed(API, &error));
            results.push((Check::failed(ADMIN_LOGIN, "not tried: the API client could not be set up"), Exit::Config));
        }
    }
    let exit = results.iter().map(|(_, exit)| *exit).find(|exit| *exit != Exit::Done).unwrap_or(Exit::Done);
    let checks: Vec<Check> = results.into_iter().map(|(check, _)| check).collect();
    print(&checks, json).map_err(|error| io_failure(error, "writing to standard output"))?;
    Ok(exit)
}

fn failed(id: &'static str, error: &Error) -> (Check, Exit) {
    (Check::failed(id, error.line()), error.exit())
}

fn images_only() -> (Check, Exit) {
    (Check::ok(PRIVILEGES, "not needed for images"), Exit::Done)
}

fn privileges(owner: Owner) -> (Check, Exit) {
    let check = match (geteuid().is_root(), owner) {
        (true, _) => Check::ok(PRIVILEGES, "root"),
        (false, Owner::Current) => Check::warning(
            PRIVILEGES,
            "not root: the files belong to the caller, and the image builder must change their owner to 0:0",
        ),
        (false, Owner::Root) => {
            let message = "not root; run this as root, or with --owner current on a staging tree of your own";
            return (Check::failed(PRIVILEGES, message), Exit::Refused);
        }
    };
    (check, Exit::Done)
}

/// Runs the checks of one target, including those for problems that keep the device from booting.
fn target(path: &Path, owner: Owner) -> Vec<(Check, Exit)> {
    let mut results =
        match target::open(path).map_err(Error::from).and_then(|target| target_checks(target.as_ref(), owner)) {
            Ok(checks) => checks.into_iter().map(|check| (check, Exit::Done)).collect(),
            Err(error) => vec![failed(TARGET, &error)],
        };
    // Also for a refused target: the flasher may write another file.
    results.extend(image::flash_config(path).map(|check| (check, Exit::Done)));
    results
}

fn target_checks(target: &dyn Target, owner: Owner) -> Result<Vec<Check>> {
    target.may_write(owner)?;
    let mut checks = vec![existing_conf(target)?];
    checks.extend(image::content(target)?);
    checks.extend(image::zstd(target));
    Ok(checks)
}

/// Checks whether a target holds a `device.conf`.
fn existing_conf(target: &dyn Target) -> Result<Check> {
    let location = format!("{} ({})", target.path().display(), target.kind());
    let Some(found) = target.read_conf()? else {
        return Ok(Check::ok(TARGET, format!("{location} has no device.conf yet")));
    };
    if let Some(message) = intent::message(target, &found) {
        return Ok(Check::warning(TARGET, message));
    }
    let conf = found.conf(target.path())?;
    let whose = conf.whose();
    Ok(Check::warning(TARGET, format!("{location} holds the device.conf of {whose}; clear it before the next device")))
}

fn api(http: &dyn ApiClient, budget: &Budget<'_>) -> (Check, Exit) {
    let api = http.api();
    match budget.run(|limit| keys::fetch(http, false, limit)) {
        Ok(Keys::Set(keys)) => {
            (Check::ok(API, format!("{api} answers and publishes {} key(s)", keys.len())), Exit::Done)
        }
        Ok(Keys::None) => {
            let message =
                format!("{api} answers but publishes no keys: devices can't verify the signatures of their tokens");
            (Check::warning(API, message), Exit::Done)
        }
        Err(fault) => failed(API, &fault.into()),
    }
}

fn admin_login(is_prepared: Result<()>, admin: &Admin<'_>) -> (Check, Exit) {
    match is_prepared.and_then(|()| admin.log_in()) {
        Ok(()) => (Check::ok(ADMIN_LOGIN, "the API accepts the admin's login"), Exit::Done),
        Err(error) => failed(ADMIN_LOGIN, &error),
    }
}
