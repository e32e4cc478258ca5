//! `azaion-provision device`: the main job, from the command line to the report.

use std::time::Instant;

use azaion_agent::clock::SystemClock;
use azaion_agent::exit::Exit;
use azaion_agent::identity::{Serial, SerialError};
use nix::unistd::geteuid;
use serde::Serialize;

use crate::admin::Admin;
use crate::cli::DeviceOptions;
use crate::connection;
use crate::failure::failure;
use crate::output;
use crate::provision::{Job, Outcome};
use crate::target::{self, Kind, Owner};

/// What came of it, for machines.
#[derive(Debug, Serialize)]
struct Report {
    serial: String,
    email: String,
    outcome: Outcome,
    targets: Vec<Place>,
    api_url: String,
    elapsed_ms: u128,
}

#[derive(Debug, Serialize)]
struct Place {
    kind: Kind,
    path: String,
}

/// Provisions one device.
pub(crate) fn run(options: &DeviceOptions, json: bool) -> anyhow::Result<Exit> {
    let start = Instant::now();
    let serial: Serial = options
        .serial
        .parse()
        .map_err(|error: SerialError| failure(Exit::Data, format!("the serial given can't be used: {error}")))?;
    let api = connection::api_url(&options.api)?;
    let http = connection::http(&api, &options.api)?;
    let targets = target::open_all(&options.rootfs)?;
    let clock = SystemClock;
    let retry = connection::retry(&options.api, &clock);
    let job = Job {
        serial: &serial,
        email: serial.email(),
        targets: &targets,
        owner: options.owner.owner,
        on_existing: options.on_existing,
        replace: options.replace,
        http: &http,
        retry: &retry,
        admin: Admin::new(&http, &retry, &options.api),
        clock: &clock,
    };
    let outcome = job.run()?;
    if options.verify {
        job.verify()?;
    }
    let has_directory = targets.iter().any(|target| target.kind() == Kind::Directory);
    if options.owner.owner == Owner::Current && has_directory && !geteuid().is_root() {
        log::warn!(
            "device.conf belongs to the caller; the image builder must make it 0:0, or the device's user may read it"
        );
    }
    let report = Report {
        serial: serial.to_string(),
        email: job.email.clone(),
        outcome,
        targets: targets.iter().map(|t| Place { kind: t.kind(), path: t.path().display().to_string() }).collect(),
        api_url: api.to_string(),
        elapsed_ms: start.elapsed().as_millis(),
    };
    output::print(json, &report, &report.text())?;
    Ok(Exit::Done)
}

impl Report {
    fn text(&self) -> String {
        let places = self.targets.iter().map(|place| format!("{} ({})", place.path, place.kind)).collect::<Vec<_>>();
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
