//! `azaion-provision clear`: takes an identity out again, so that the next unit can't inherit it.

use std::path::PathBuf;

use azaion_agent::exit::Exit;
use serde::Serialize;

use crate::failure::for_all;
use crate::output;
use crate::target::{self, Kind};

#[derive(Debug, Serialize)]
struct Record {
    path: String,
    kind: Kind,
    /// Whether there was one.
    cleared: bool,
}

/// Clears each target; one without a `device.conf` is as it should be.
pub(crate) fn run(targets: &[PathBuf], json: bool) -> Exit {
    for_all(targets, |path| {
        let target = target::open(path)?;
        let cleared = target.clear()?;
        let record = Record { path: target.path().display().to_string(), kind: target.kind(), cleared };
        let what = if cleared { "device.conf taken out" } else { "there was no device.conf" };
        output::print(json, &record, &format!("{} ({}): {what}", record.path, record.kind))
    })
}
