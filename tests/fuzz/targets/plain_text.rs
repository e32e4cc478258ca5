//! Fuzzes the escaping of certificate names, file names and server texts: no control character ends up in a line or in
//! JSON.
#![no_main]

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use azaion_agent::common::check::Check;
use azaion_agent::api::fault::{Fault, Problem, chain};
use azaion_agent::common::plain_text::{escaped, is_control, write_json};
use azaion_agent::api::transport::Transport;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let path = Path::new(OsStr::from_bytes(input)).display().to_string();
    // TLS quotes the names of a certificate this way, and both programs quote a file this way.
    let detail = format!("certificate only valid for {input:?} {path}");
    let problem = Problem::Transport { kind: Transport::Tls, detail: detail.into(), before_request: true, proxy: None };
    let fault = Fault { step: "POST /login".to_owned(), host: path.clone(), retry_after: None, problem };
    let check = Check::failed("target", path.clone());
    let lines = [chain(&fault), chain(&io::Error::other(path.clone())), check.to_string(), escaped(&path).into_owned()];
    for line in &lines {
        assert!(!line.contains(is_control), "{line:?}");
        assert_eq!(escaped(line), line.as_str());
    }
    let mut json = Vec::new();
    write_json(&mut json, &(&path, &check)).expect("writing to a Vec");
    let json = String::from_utf8(json).expect("JSON is UTF-8");
    assert!(!json.contains(is_control), "{json:?}");
    let (read, _): (String, serde_json::Value) = serde_json::from_str(&json).expect("JSON");
    assert_eq!(read, path);
});
