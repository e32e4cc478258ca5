//! `azaion-provision batch`: a list of devices, each with a target of its own.
//!
//! There is no state but the targets and the API: what is done is found there, so any run may be interrupted, and the
//! next one does what is left.

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

/// For the calls of one unit: the API may ask a whole station to wait for a minute, and that more than once.
const DEADLINE: Duration = Duration::from_mins(5);

/// Provisions all units of a list. A unit that fails does not keep it from the others.
pub(crate) fn run(options: &BatchOptions, json: bool) -> Result<Exit> {
    let list = List::read(&options.list)?;
    let patterns = TargetPatterns::new(&options.rootfs, list.units.len())?;
    let api = connection::api_url(&options.job.api)?;
    let report = options.report.as_deref().map(Report::new).transpose()?;
    let login = AdminLogin::new(&options.job.api, &InterruptibleClock);
    let http = connection::http(&api, &options.job.api)?;
    if !options.dry_run {
        // A person is asked for the password before there is a bar.
        login.prepare()?;
    }
    let (template, _held) =
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
    tally.tell(list.units.len(), start.elapsed(), json, login.is_refused())?;
    Ok(tally.exit())
}

struct Batch<'a> {
    options: &'a BatchOptions,
    api: &'a ApiUrl,
    list: &'a List,
    patterns: TargetPatterns,
    template: Option<Template>,
    login: &'a AdminLogin<'a>,
    /// Nothing more is begun, for what becomes of it can't be reported.
    is_stopped: AtomicBool,
    next: AtomicUsize,
}

impl Batch<'_> {
    fn run(&self, http: &dyn ApiClient, report: Option<ReportFile>, json: bool) -> Result<Tally> {
        let results = Mutex::new(Results::new(self.list.units.len(), json, report));
        thread::scope(|scope| {
            if self.options.dry_run {
                scope.spawn(|| {
                    self.work(&results, |unit, paths| {
                        dry_run::plan(self.options, self.api, self.template.is_some(), unit, paths)
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
        self.work(results, |unit, paths| {
            let places = paths.iter().map(|path| self.resolve_or_copy(path)).collect::<Result<_>>()?;
            let common = Common {
                options: &self.options.job,
                module_serial: unit.module_serial.as_deref(),
                login: self.login,
                clock: &InterruptibleClock,
                deadline: DEADLINE,
                uses_confirmations: !self.options.job.verify,
            };
            let report = device::provision(&common, http, &IdentitySource::Serial(unit.serial.clone()), places)?;
            Ok(DeviceOutcome::Provisioned(report.outcome))
        });
    }

    /// Where a target is, copied from the template if it was missing.
    fn resolve_or_copy(&self, path: &Path) -> Result<ResolvedPath> {
        let Some(template) = &self.template else { return Ok(target::find(path)?) };
        let mut place = target::find_or_create_parents(path)?;
        template.copy_if_missing(&mut place)?;
        Ok(place)
    }

    /// Takes unit after unit, until none is left or the batch is stopped.
    fn work(&self, results: &Mutex<Results>, one: impl Fn(&ListedDevice, &[PathBuf]) -> Result<DeviceOutcome>) {
        while !self.is_stopped.load(Ordering::Relaxed) && !interrupt::is_requested() && !self.login.is_refused() {
            let Some(unit) = self.list.units.get(self.next.fetch_add(1, Ordering::Relaxed)) else { return };
            let start = Instant::now();
            let paths = self.patterns.of(&unit.serial);
            let outcome = about(&unit.serial, || one(unit, &paths));
            let record = Record::new(unit, &self.list.columns, &paths, start.elapsed(), outcome);
            if !results.lock().unwrap_or_else(PoisonError::into_inner).add(record) {
                self.is_stopped.store(true, Ordering::Relaxed);
            }
        }
    }
}
