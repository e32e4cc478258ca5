//! `azaion-provision device`: provisions one device, and prints a report.

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

/// Report about a provisioned device, for `--json`.
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

/// A target with its kind.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) struct Located {
    /// The kind of target, detected from its content.
    kind: Kind,
    /// The target, as it was given.
    path: String,
}

/// Inputs that all devices of a run share.
#[derive(Debug)]
pub(crate) struct Common<'a> {
    pub(crate) options: &'a JobOptions,
    pub(crate) login: &'a AdminLogin<'a>,
    pub(crate) clock: &'a dyn Clock,
    /// Default time budget for the requests of one device.
    pub(crate) deadline: Duration,
    /// Whether to trust and write confirmation comments.
    pub(crate) uses_confirmations: bool,
    /// Serial number of the device's module, if given.
    pub(crate) module_serial: Option<&'a str>,
}

/// Provisions the device of the command line.
pub(crate) fn run(options: &DeviceOptions, json: bool) -> Result<Exit> {
    let source = match &options.serial {
        Some(serial) => IdentitySource::Serial(
            serial.parse().map_err(|error: SerialError| failure(Exit::Data, format!("invalid serial: {error}")))?,
        ),
        None => IdentitySource::Assigned,
    };
    let module_serial = options.module_serial.as_deref();
    if let Some(why) = module_serial.and_then(objection) {
        return Err(failure(Exit::Data, format!("the serial number in --module-serial {why}")));
    }
    let api = connection::api_url(&options.job.api)?;
    let http = connection::http(&api, &options.job.api)?;
    let paths = options.rootfs.iter().map(|path| target::find(path)).collect::<target::Result<_>>()?;
    let login = AdminLogin::new(&options.job.api, &InterruptibleClock);
    let common = Common {
        options: &options.job,
        login: &login,
        clock: &InterruptibleClock,
        deadline: connection::USUAL_DEADLINE,
        uses_confirmations: false,
        module_serial,
    };
    let report = provision(&common, &http, &source, paths)?;
    output::print(json, &report, &report.text())?;
    Ok(Exit::Done)
}

/// Where the identity of a device comes from.
#[derive(Debug)]
pub(crate) enum IdentitySource {
    /// Derived from its serial.
    Serial(Serial),
    /// Created by the server.
    Assigned,
}

/// Provisions one device, for the commands `device` and `batch`.
pub(crate) fn provision(
    common: &Common<'_>,
    http: &dyn ApiClient,
    source: &IdentitySource,
    paths: Vec<ResolvedPath>,
) -> Result<Report> {
    let (start, options) = (Instant::now(), common.options);
    let targets = target::open_all(paths)?;
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
    let (Identity { serial, email }, outcome) = match source {
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
            "device.conf belongs to the caller; the image builder must change its owner to 0:0, otherwise a user of the device may read it"
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
    /// Returns the report for people.
    fn text(&self) -> String {
        let describe = |target: &Located| format!("{} ({})", escaped(&target.path), target.kind);
        let targets = self.targets.iter().map(describe).collect::<Vec<_>>();
        format!(
            "{}: account {} {} at {}; device.conf is in {} ({} ms)",
            self.serial,
            self.email,
            self.outcome,
            self.api_url,
            targets.join(" and "),
            self.elapsed_ms
        )
    }
}
