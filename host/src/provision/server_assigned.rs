//! The order of the main job for a device whose identity the server makes (`--server-assigned`). The reply is the only place where
//! its password exists.
//!
//! 1. Look at the targets. An identity that is in one of them and can log in is used again: no second device.
//! 2. Log the admin in.
//! 3. Write the intent into each target, in the place of the identity: all that writing needs is there, and a run that is killed from
//!    now on leaves word of it.
//! 4. Ask, once. Only what the API has certainly not done is asked again.
//! 5. Write the reply at once.

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

/// Gives the targets an identity that the server makes.
pub(crate) fn assign(job: &Job<'_>) -> Result<(Identity, Outcome)> {
    let (owner, api) = (job.owner, job.http.api());
    let places = Targets::read(job.targets, owner, |target, found| {
        let conf = adoption::assigned(target, found, owner, api, job.replace)?;
        Ok(conf.map_or(Content::Free, Content::Ours))
    })?;
    let identity = identity_in(&places)?;
    places.check_modules(job.module_serial)?;
    job.admin.prepare()?;
    if let Some(identity) = identity {
        if let Some(password) = job.try_all(&identity.email, &places.passwords())?.works {
            places.report_lost_intents();
            places.write(&job.conf(&identity, password, places.module_serial(job.module_serial)))?;
            return Ok((identity, Outcome::Reused));
        }
        if !job.replace {
            let message = format!(
                "the target holds the device.conf of {}, which the API does not let in; see what has become of {} there, then clear \
                 the target, or give --replace for a new identity",
                identity.serial, identity.email
            );
            return Err(failure(Exit::Exists, message));
        }
    }
    places.report_intents();
    job.admin.log_in()?;
    let now = job.now();
    places.write_text(&intent(api, now))?;
    match job.admin.assign() {
        Ok(assigned) => write(job, &places, assigned),
        Err(fault) => Err(places.restore(not_assigned(api, now, fault))),
    }
}

/// IdentitySource is in the targets, if anybody is.
fn identity_in(places: &Targets<'_>) -> Result<Option<Identity>> {
    let mut found = places.ours().filter_map(DeviceConf::identity);
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

/// Writes the reply. What is in one target is not lost: the next run brings it into the others.
fn write(job: &Job<'_>, places: &Targets<'_>, assigned: Assigned) -> Result<(Identity, Outcome)> {
    let Assigned { identity, password } = assigned;
    let conf = job.conf(&identity, &password, job.module_serial);
    let (done, is_written) = interrupt::uninterrupted(|| places.write_where_possible(&conf));
    let Identity { serial, email } = &identity;
    match done {
        Ok(()) => Ok((identity, Outcome::Assigned)),
        Err(error) if is_written => Err(error.context(format!(
            "the API has made {serial} ({email}), and its device.conf is not in order in all targets yet; run this again, it goes on from there"
        ))),
        Err(error) => Err(places.restore(error.context(format!(
            "the API has made {serial} ({email}), and its password could not be written and is lost: an orphaned account; delete that user on the API, then \
             run this again"
        )))),
    }
}

/// What a call that failed may have left on the API.
fn not_assigned(api: &ApiUrl, asked: Timestamp, fault: AdminFault) -> Error {
    let is_without_route = fault.is_without_route();
    let AdminFault { error, perhaps_done } = fault;
    if is_without_route {
        return error.context("this server makes no identities (POST /devices); name the device by a serial, AZJN-…");
    }
    if !perhaps_done {
        return error.context("no identity was made");
    }
    error.context(format!(
        "asked {api} for an identity, and no answer came that can be used: the API may have made a user that no device has (an orphaned \
         account), an azj-… created at about {asked}; if it is no device of yours, delete it there. Where the newest CompanionPC user is no \
         azj-… at all, the API can't number devices, since another scheme of e-mails is in use on it"
    ))
}
