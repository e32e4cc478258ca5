//! Provisions a device whose identity the server creates (`--server-assigned`). The password exists only in the response.
//!
//! 1. Read the targets. Reuse an identity in one of them that can log in, so that no second device is created.
//! 2. Log in as the admin.
//! 3. Write the intent into each target, in place of the identity. This shows that the targets can be written, and a run that is
//!    killed from now on leaves a trace.
//! 4. Request the identity, once. Repeat only requests that the API has certainly not carried out.
//! 5. Write the response immediately.

use azaion_agent::api::url::ApiUrl;
use azaion_agent::common::clock::Timestamp;
use azaion_agent::common::device_conf::DeviceConf;
use azaion_agent::common::exit::Exit;
use azaion_agent::common::identity::Identity;

use crate::admin_api::{AdminFault, Assigned};
use crate::error::{Error, Result, failure};
use crate::interrupt;
use crate::provision::adoption;
use crate::provision::intent::intent;
use crate::provision::job::{Job, Outcome};
use crate::provision::targets::{Content, Targets};

/// Requests an identity from the server and writes it into the targets, unless they hold a working one.
pub(crate) fn assign(job: &Job<'_>) -> Result<(Identity, Outcome)> {
    let (owner, api) = (job.owner, job.http.api());
    let targets = Targets::read(job.targets, owner, |target, found| {
        let conf = adoption::assigned(target, found, owner, api, job.replace)?;
        Ok(conf.map_or(Content::Free, Content::Ours))
    })?;
    let identity = identity_in(&targets)?;
    targets.check_modules(job.module_serial)?;
    job.admin.prepare()?;
    if let Some(identity) = identity {
        if let Some(password) = job.try_all(&identity.email, &targets.passwords())?.works {
            targets.report_lost_intents();
            targets.write(&job.conf(&identity, password, targets.module_serial(job.module_serial)))?;
            return Ok((identity, Outcome::Reused));
        }
        if !job.replace {
            let message = format!(
                "the target holds the device.conf of {}, whose login the API refuses; check the account {} on the API, then clear the \
                 target, or use --replace for a new identity",
                identity.serial, identity.email
            );
            return Err(failure(Exit::Exists, message));
        }
    }
    targets.report_intents();
    job.admin.log_in()?;
    let now = job.now();
    targets.write_text(&intent(api, now))?;
    match job.admin.assign() {
        Ok(assigned) => write(job, &targets, assigned),
        Err(fault) => Err(targets.restore(not_assigned(api, now, fault))),
    }
}

/// Returns the identity in the targets, if there is one.
fn identity_in(targets: &Targets<'_>) -> Result<Option<Identity>> {
    let mut found = targets.ours().filter_map(DeviceConf::identity);
    let Some(first) = found.next() else { return Ok(None) };
    match found.find(|other| *other != first) {
        None => Ok(Some(first)),
        Some(other) => Err(failure(
            Exit::Exists,
            format!(
                "one target holds the device.conf of {}, another that of {}; clear one of them",
                first.serial, other.serial
            ),
        )),
    }
}

/// Writes the response. If one target has it, nothing is lost: the next run copies it to the others.
fn write(job: &Job<'_>, targets: &Targets<'_>, assigned: Assigned) -> Result<(Identity, Outcome)> {
    let Assigned { identity, password } = assigned;
    let conf = job.conf(&identity, &password, job.module_serial);
    let (result, is_written) = interrupt::uninterrupted(|| targets.write_where_possible(&conf));
    let Identity { serial, email } = &identity;
    match result {
        Ok(()) => Ok((identity, Outcome::Assigned)),
        Err(error) if is_written => Err(error.context(format!(
            "the API created {serial} ({email}), but not all targets have its device.conf yet; run this again to continue"
        ))),
        Err(error) => Err(targets.restore(error.context(format!(
            "the API created {serial} ({email}), but its password could not be written and is lost: an orphaned account; delete it on the API, \
             then run this again"
        )))),
    }
}

/// Returns the error for a failed request, with what it may have left on the API.
fn not_assigned(api: &ApiUrl, requested_at: Timestamp, fault: AdminFault) -> Error {
    let is_without_route = fault.is_without_route();
    let AdminFault { error, perhaps_done } = fault;
    if is_without_route {
        return error.context("this server does not create identities (POST /devices); use a serial, AZJN-…");
    }
    if !perhaps_done {
        return error.context("no identity was created");
    }
    error.context(format!(
        "requested an identity from {api} and got no valid response: the API may have created an orphaned account \
         (no device has its password), an azj-… created at about {requested_at}; if it belongs to no device of yours, delete it \
         on the API. If the newest CompanionPC account is not an azj-…, the API can't number devices, because it also has \
         e-mails of another scheme"
    ))
}
