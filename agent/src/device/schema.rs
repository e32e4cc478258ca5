//! JSON Schema of the agent's files and of its output.

use serde_json::{Value, json};

use crate::common::exit::Exit;
use crate::common::history::{Change, History};
use crate::common::schema::{Document, Form, narrow};

use super::backoff::Backoff;
use super::cache::{RefreshRecord, TokenCache};
use super::readiness::{FirstBoot, Readiness};
use super::states::{HELD, STATES};
use super::status;
use super::token::Refusal;

/// Returns the schema of each file of the agent, and of each line that it prints with `--json`.
pub fn documents() -> Vec<Document> {
    let mut documents = files();
    documents.extend([
        Document::of::<Refusal>(
            "refusal",
            "Answer without a token",
            "What the socket /run/azaion/token.sock sends instead of token.json if there is no valid token.",
        )
        .narrowed("code", "enum", failures()),
        Document::of_checks(
            "status",
            "Check of the device",
            "One line of `azaion-agent status --json`: one step from device.conf to readiness.",
            &status::ids(),
        ),
        Document::of::<Change>(
            "status-history",
            "Change of state",
            "One line of `azaion-agent status --history --json`, the oldest first: one change of history.json. Texts of a file \
             that the agent did not write are shortened, and otherwise repeated.",
        ),
    ]);
    documents
}

fn files() -> Vec<Document> {
    vec![
        Document::of::<TokenCache>(
            "token",
            "Access token",
            "/run/azaion/token.json, `azaion-agent token --json`, and the answer of the socket /run/azaion/token.sock.",
        ),
        ready(),
        Document::of::<RefreshRecord>(
            "refresh",
            "Refresh token",
            "/run/azaion/refresh.json, which only the agent reads.",
        ),
        Document::of::<Backoff>(
            "backoff",
            "Wait before the next login",
            "/run/azaion/backoff.json: until when the agent makes no login, and why.",
        )
        .narrowed("code", "enum", failures()),
        Document::of::<FirstBoot>(
            "first-boot",
            "What outlives a boot",
            "/var/lib/azaion/first-boot.json: when the device was first ready, and what the agent knows about the time.",
        ),
        history(),
    ]
}

fn ready() -> Document {
    let what = "/run/azaion/ready.json: whether the device has a valid token, or why not. It has no secret.";
    let document = Document::of::<Readiness>("ready", "Readiness", what).narrowed("code", "enum", failures());
    document.of_forms(&[
        Form {
            title: "ready",
            discriminator: Some(("ready", json!({ "const": true }))),
            required: &["email", "api_url", "since", "expires_at", "signature"],
            absent: &["code", "reason"],
        },
        Form {
            title: "not ready",
            discriminator: Some(("ready", json!({ "const": false }))),
            required: &["code", "reason"],
            absent: &["user_id", "since", "expires_at", "signature"],
        },
    ])
}

/// Returns the schema of `history.json`, with the states and exit codes that the agent itself writes.
fn history() -> Document {
    let what = "/var/lib/azaion/history.json: the last changes of the device's state. It has no secret.";
    let mut document = Document::of::<History>("history", "History of the device", what);
    let mut names: Vec<&str> = STATES.iter().map(|(_, state)| state.name).collect();
    names.push(HELD.name);
    for (field, values) in [("state", json!(names)), ("code", json!(codes()))] {
        narrow(&mut document.schema, &format!("/properties/changes/items/properties/{field}"), "enum", values);
    }
    document
}

/// Returns the exit codes of a run that did not make the device ready.
fn failures() -> Value {
    codes().into_iter().filter(|code| *code != Exit::Done.code()).collect()
}

fn codes() -> Vec<u8> {
    let mut codes: Vec<u8> = STATES.iter().map(|(exit, _)| exit.code()).collect();
    codes.sort_unstable();
    codes
}
