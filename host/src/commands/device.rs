//! `azaion-provision device`: the main job, from the command line to the report.

use std::time::{Duration, Instant};

use azaion_agent::api::http::ApiClient;
use azaion_agent::common::clock::Clock;
use azaion_agent::common::exit::Exit;
use azaion_agent::common::identity::{Identity, Serial, SerialError};
use azaion_agent::common::plain_text::escaped;
use nix::unistd::geteuid;
use serde::Serialize;

use crate::admin_api::Admin;
use crate::admin_api::connection;
use crate::admin_api::login::AdminLogin;
use crate::cli::{DeviceOptions, JobOptions};
use crate::commands::module_serial::objection;
use crate::error::{Result, failure};
use crate::interrupt::InterruptibleClock;
use crate::provision::by_serial::Provisioning;
use crate::provision::job::{Job, Outcome};
use crate::provision::server_assigned;
use crate::resolved_path::ResolvedPath;
use crate::target::{self, Kind, Owner};
use crate::ui::output;

/// What came of it, for machines.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) struct Report {
    /// Serial of the device.
    pub(crate) serial: String,
    /// E-mail address of its account.
    pub(crate) email: String,
    /// How the device came to have the identity that is in the targets.
    pub(crate) outcome: Outcome,
    /// Where `device.conf` is now.
    pub(crate) targets: Vec<Located>,
    /// The admin API that has the account.
    api_url: String,
    /// Milliseconds that the run took, copying and waiting included.
    pub(crate) elapsed_ms: u128,
}

#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) struct Located {
    /// The kind of target, as its content tells it.
    kind: Kind,
    /// The target, as it was given.
    path: String,
}

/// What all devices of a run have in common.
#[derive(Debug)]
pub(crate) struct Common<'a> {
    pub(crate) options: &'a JobOptions,
    pub(crate) login: &'a AdminLogin<'a>,
    pub(crate) clock: &'a dyn Clock,
    /// For the calls of one device, where the command line names none.
    pub(crate) deadline: Duration,
    /// Whether a device is known to be done by a mark in its target, and gets one.
    pub(crate) uses_confirmations: bool,
    /// The module that the device is for, where it is given.
    pub(crate) module_serial: Option<&'a str>,
}

/// Provisions one device.
pub(crate) fn run(options: &DeviceOptions, json: bool) -> Result<Exit> {
    let who =
        match &options.serial {
            Some(serial) => IdentitySource::Serial(serial.parse().map_err(|error: SerialError| {
                failure(Exit::Data, format!("the serial given can't be used: {error}"))
            })?),
            None => IdentitySource::Assigned,
        };
    let module_serial = options.module_serial.as_deref();
    if let Some(why) = module_serial.and_then(objection) {
        return Err(failure(Exit::Data, format!("the module's serial number given {why}")));
    }
    let api = connection::api_url(&options.job.api)?;
    let http = connection::http(&api, &options.job.api)?;
    let places = options.rootfs.iter().map(|path| target::find(path)).collect::<target::Result<_>>()?;
    let login = AdminLogin::new(&options.job.api, &InterruptibleClock);
    let common = Common {
        options: &options.job,
        login: &login,
        clock: &InterruptibleClock,
        deadline: connection::USUAL_DEADLINE,
        uses_confirmations: false,
        module_serial,
    };
    let report = provision(&common, &http, &who, places)?;
    output::print(json, &report, &report.text())?;
    Ok(Exit::Done)
}

/// Whom a device becomes.
#[derive(Debug)]
pub(crate) enum IdentitySource {
    /// The one that follows from its serial.
    Serial(Serial),
    /// One that the server makes.
    Assigned,
}

/// Provisions a device, alone or as one of many.
pub(crate) fn provision(
    common: &Common<'_>,
    http: &dyn ApiClient,
    who: &IdentitySource,
    places: Vec<ResolvedPath>,
) -> Result<Report> {
    let (start, options) = (Instant::now(), common.options);
    let targets = target::open_all(places)?;
    let budget = connection::budget(&options.api, common.deadline, common.clock);
    let job = Job {
        targets: &targets,
        owner: options.owner.owner,
        replace: options.replace,
        module_serial: common.module_serial,
        http,
        budget: &budget,
        admin: Admin::new(http, &budget, common.login),
        clock: common.clock,
    };
    let (Identity { serial, email }, outcome) = match who {
        IdentitySource::Serial(serial) => {
            let provisioning = Provisioning {
                job: &job,
                serial,
                on_existing: options.on_existing,
                uses_confirmations: common.uses_confirmations,
            };
            (serial.into(), provisioning.run()?)
        }
        IdentitySource::Assigned => server_assigned::assign(&job)?,
    };
    if options.verify {
        job.verify()?;
    }
    let has_directory = targets.iter().any(|target| target.kind() == Kind::Directory);
    if options.owner.owner == Owner::Current && has_directory && !geteuid().is_root() {
        log::warn!(
            "device.conf belongs to the caller; the image builder must make it 0:0, or the device's user may read it"
        );
    }
    Ok(Report {
        serial,
        email,
        outcome,
        targets: targets.iter().map(|t| Located { kind: t.kind(), path: t.path().display().to_string() }).collect(),
        api_url: http.api().to_string(),
        elapsed_ms: start.elapsed().as_millis(),
    })
}

impl Report {
    fn text(&self) -> String {
        let place = |place: &Located| format!("{} ({})", escaped(&place.path), place.kind);
        let places = self.targets.iter().map(place).collect::<Vec<_>>();
        format!(
            "{}: user {} {} at {}; device.conf is in {} ({} ms)",
            self.serial,
            self.email,
            self.outcome,
            self.api_url,
            places.join(" and "),
            self.elapsed_ms
        )
    }
}
