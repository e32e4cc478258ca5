//! `azaion-provision batch`: provisions a list of devices, each with its own targets.
//!
//! The only state is in the targets and on the API. So any run may be interrupted, and the next one provisions the remaining devices.

mod columns;
mod dry_run;
mod list;
mod record;
mod report;
mod results;
mod target_pattern;
mod template_image;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use azaion_agent::api::http::ApiClient;
use azaion_agent::api::url::ApiUrl;
use azaion_agent::common::exit::Exit;

use crate::admin_api::connection;
use crate::admin_api::login::AdminLogin;
use crate::cli::BatchOptions;
use crate::commands::device::{self, Common, IdentitySource};
use crate::error::Result;
use crate::interrupt::{self, InterruptibleClock};
use crate::resolved_path::ResolvedPath;
use crate::target;
use crate::target::template::Template;
use crate::ui::log::about;
#[cfg(feature = "schema")]
pub(crate) use dry_run::Plan;
use list::{List, ListedDevice};
pub(crate) use record::Record;
use record::{DeviceOutcome, Tally};
#[cfg(feature = "schema")]
pub(crate) use record::{FAILED, Summary};
use report::{Report, ReportFile};
use results::Results;
use target_pattern::TargetPatterns;

/// Default time budget for the requests of one device: the API may ask a host to wait for a minute, more than once.
const DEADLINE: Duration = Duration::from_mins(5);

/// Provisions all devices of a list, also after failures.
pub(crate) fn run(options: &BatchOptions, json: bool) -> Result<Exit> {
    let list = List::read(&options.list)?;
    let patterns = TargetPatterns::new(&options.rootfs, list.devices.len())?;
    let api = connection::api_url(&options.job.api)?;
    let report = options.report.as_deref().map(Report::new).transpose()?;
    let login = AdminLogin::new(&options.job.api, &InterruptibleClock);
    let http = connection::http(&api, &options.job.api)?;
    if !options.dry_run {
        // Prompts for the password before the progress bar is shown.
        login.prepare()?;
    }
    let (template, _lock) =
        options.base.as_deref().map(|base| template_image::open(base, options.dry_run)).transpose()?.unzip();
    let report = report.map(|report| report.create(&list.columns)).transpose()?;
    let start = Instant::now();
    let batch = Batch {
        options,
        api: &api,
        list: &list,
        patterns,
        template,
        login: &login,
        is_stopped: AtomicBool::new(false),
        next: AtomicUsize::new(0),
    };
    let tally = batch.run(&http, report, json)?;
    tally.report(list.devices.len(), start.elapsed(), json, login.is_refused())?;
    Ok(tally.exit())
}

struct Batch<'a> {
    options: &'a BatchOptions,
    api: &'a ApiUrl,
    list: &'a List,
    patterns: TargetPatterns,
    template: Option<Template>,
    login: &'a AdminLogin<'a>,
    /// Whether to start no further device, because results can't be printed or written.
    is_stopped: AtomicBool,
    /// Index of the next device.
    next: AtomicUsize,
}

impl Batch<'_> {
    fn run(&self, http: &dyn ApiClient, report: Option<ReportFile>, json: bool) -> Result<Tally> {
        let results = Mutex::new(Results::new(self.list.devices.len(), json, report));
        thread::scope(|scope| {
            if self.options.dry_run {
                scope.spawn(|| {
                    self.work(&results, |device, paths| {
                        dry_run::plan(self.options, self.api, self.template.is_some(), device, paths)
                            .map(DeviceOutcome::Planned)
                    });
                });
            }
            let workers = if self.options.dry_run { 0 } else { self.options.jobs };
            for _ in 0..workers {
                scope.spawn(|| self.provision_all(http, &results));
            }
        });
        results.into_inner().unwrap_or_else(PoisonError::into_inner).finish()
    }

    fn provision_all(&self, http: &dyn ApiClient, results: &Mutex<Results>) {
        self.work(results, |listed, paths| {
            let targets = paths.iter().map(|path| self.resolve_or_copy(path)).collect::<Result<_>>()?;
            let common = Common {
                options: &self.options.job,
                module_serial: listed.module_serial.as_deref(),
                login: self.login,
                clock: &InterruptibleClock,
                deadline: DEADLINE,
                uses_confirmations: !self.options.job.verify,
            };
            let report = device::provision(&common, http, &IdentitySource::Serial(listed.serial.clone()), targets)?;
            Ok(DeviceOutcome::Provisioned(report.outcome))
        });
    }

    /// Resolves the path of a target, and copies the template to it if it is missing.
    fn resolve_or_copy(&self, path: &Path) -> Result<ResolvedPath> {
        let Some(template) = &self.template else { return Ok(target::find(path)?) };
        let mut resolved = target::find_or_create_parents(path)?;
        template.copy_if_missing(&mut resolved)?;
        Ok(resolved)
    }

    /// Runs `provision` for one device after another, until none is left or the batch is stopped.
    fn work(&self, results: &Mutex<Results>, provision: impl Fn(&ListedDevice, &[PathBuf]) -> Result<DeviceOutcome>) {
        while !self.is_stopped.load(Ordering::Relaxed) && !interrupt::is_requested() && !self.login.is_refused() {
            let Some(device) = self.list.devices.get(self.next.fetch_add(1, Ordering::Relaxed)) else { return };
            let start = Instant::now();
            let paths = self.patterns.of(&device.serial);
            let outcome = about(&device.serial, || provision(device, &paths));
            let record = Record::new(device, &self.list.columns, &paths, start.elapsed(), outcome);
            if !results.lock().unwrap_or_else(PoisonError::into_inner).add(record) {
                self.is_stopped.store(true, Ordering::Relaxed);
            }
        }
    }
}
