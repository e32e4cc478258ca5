//! JSON Schemas of the output of `azaion-provision`: with `--json`, and in reports.

use azaion_agent::common::schema::{Document, Form, narrow, of};
use serde_json::{Value, json};

use crate::commands::batch::{FAILED, Plan, Record, Summary};
use crate::commands::check;
use crate::commands::clear;
use crate::commands::device;
use crate::commands::inspect;

/// Returns the schema of each kind of line that the program prints or writes.
pub fn documents() -> Vec<Document> {
    let device = Document::of::<device::Report>(
        "device",
        "Provisioned device",
        "The line of `azaion-provision device --json`, if the device was provisioned.",
    );
    let ended = names(&device).into_iter().chain([FAILED.to_owned()]).collect();
    let planned = Plan::ALL.map(Plan::name).into_iter().chain([FAILED]).map(str::to_owned).collect();
    vec![
        batch("batch", "of `azaion-provision batch --json` and of the report `--report FILE.jsonl`", &ended),
        batch("batch-dry-run", "of `azaion-provision batch --dry-run --json`, and of its report", &planned),
        summary([ended, planned].concat()),
        device,
        inspect(),
        Document::of::<clear::Record>(
            "clear",
            "Cleared target",
            "One line of `azaion-provision clear --json`, for each target that is without a device.conf now.",
        ),
        Document::of_checks(
            "check",
            "Check before a shift",
            "One line of `azaion-provision check --json`.",
            &check::IDS,
        ),
    ]
}

fn batch(name: &'static str, lines: &str, outcomes: &Vec<String>) -> Document {
    let what = format!("One line {lines}, for each device of the list that was tried.");
    let failed = json!(FAILED);
    let document =
        Document::of::<Record>(name, "Device of a batch", &what).narrowed("outcome", "enum", json!(outcomes));
    document.of_forms(&[
        Form {
            title: "failed",
            discriminator: Some(("outcome", json!({ "const": failed }))),
            required: &["error"],
            ..Form::default()
        },
        Form {
            title: "did not fail",
            discriminator: Some(("outcome", json!({ "not": { "const": failed } }))),
            absent: &["error"],
            ..Form::default()
        },
    ])
}

/// Returns the schema of the last line of a batch, with or without `--dry-run`.
fn summary(mut outcomes: Vec<String>) -> Document {
    outcomes.sort();
    outcomes.dedup();
    let what = "The last line of `azaion-provision batch --json`, for the whole list.";
    let document = Document::of::<Summary<'_>>("batch-summary", "Summary of a batch", what);
    document.narrowed("outcomes", "propertyNames", json!({ "enum": outcomes }))
}

fn inspect() -> Document {
    let content = of::<inspect::Content>();
    let fields = content.get("properties").and_then(Value::as_object).into_iter().flatten();
    let all: Vec<&str> = fields.clone().map(|(name, _)| name.as_str()).collect();
    let required = content.get("required").and_then(Value::as_array).into_iter().flatten();
    let required: Vec<&str> = required.filter_map(Value::as_str).collect();
    let absent = [&all[..], &["empty"]].concat();
    let what = "One line of `azaion-provision inspect --json`: what is in a target, without the password.";
    let mut document = Document::of::<inspect::Record>("inspect", "Content of a target", what);
    // The fields as they are with a device.conf; then some of them can be null.
    for (name, schema) in fields {
        narrow(&mut document.schema, "/properties", name, schema.clone());
    }
    document.of_forms(&[
        Form { title: "device.conf", required: &required, absent: &["empty"], ..Form::default() },
        Form {
            title: "no device.conf",
            discriminator: Some(("empty", json!({ "const": true }))),
            absent: &all,
            ..Form::default()
        },
        Form {
            title: "a device.conf that can't be used, of a device whose agent has run",
            required: &["history"],
            absent: &absent,
            ..Form::default()
        },
    ])
}

/// Returns the names of the outcomes of `device`.
fn names(device: &Document) -> Vec<String> {
    let outcomes = device.schema.pointer("/properties/outcome/oneOf").and_then(Value::as_array);
    let name = |outcome: &Value| outcome.get("const").and_then(Value::as_str).map(str::to_owned);
    outcomes.into_iter().flatten().filter_map(name).collect()
}
