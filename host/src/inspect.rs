//! `azaion-provision inspect`: what is in a target, but for the password.

use std::path::PathBuf;

use azaion_agent::clock::Timestamp;
use azaion_agent::exit::Exit;
use azaion_agent::plain_text::escaped;
use serde::Serialize;

use crate::error::{Result, for_all};
use crate::output;
use crate::target::{self, Kind, Target};

#[derive(Debug, Serialize)]
struct Record {
    path: String,
    kind: Kind,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    empty: bool,
    #[serde(flatten)]
    content: Option<Content>,
}

#[derive(Debug, Serialize)]
struct Content {
    serial: Option<String>,
    email: String,
    api_url: String,
    provisioned_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    module_serial: Option<String>,
    mode: String,
    uid: u32,
    gid: u32,
}

/// Prints a record for each target that can be read.
pub(crate) fn run(targets: &[PathBuf], json: bool) -> Exit {
    for_all(targets, |path| {
        let record = record(target::open_to_read(path)?.as_ref())?;
        output::print(json, &record, &record.text())
    })
}

fn record(target: &dyn Target) -> Result<Record> {
    let found = target.look()?;
    let content = match &found {
        None => None,
        Some(found) => {
            let conf = found.conf(target.path())?;
            Some(Content {
                serial: conf.serial,
                email: conf.email,
                api_url: conf.api_url.to_string(),
                provisioned_at: conf.provisioned_at,
                module_serial: conf.module_serial,
                mode: format!("{:04o}", found.mode),
                uid: found.uid,
                gid: found.gid,
            })
        }
    };
    Ok(Record { path: target.path().display().to_string(), kind: target.kind(), empty: content.is_none(), content })
}

impl Record {
    fn text(&self) -> String {
        let path = escaped(&self.path);
        let Some(content) = &self.content else {
            return format!("{path} ({}): no device.conf", self.kind);
        };
        let unknown = || "not recorded".to_owned();
        let serial = content.serial.clone().unwrap_or_else(unknown);
        let when = content.provisioned_at.map_or_else(unknown, |time| time.to_string());
        let module =
            content.module_serial.as_ref().map_or(String::new(), |module| format!("\n  module       {module}"));
        format!(
            "{path} ({})\n  serial       {serial}\n  e-mail       {}\n  API          {}\n  provisioned  {when}{module}\n  mode, owner  {} {}:{}",
            self.kind, content.email, content.api_url, content.mode, content.uid, content.gid
        )
    }
}
