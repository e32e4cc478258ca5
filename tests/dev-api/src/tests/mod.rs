//! Tests of the server from outside, with a small client.

mod client;
mod devices;
mod faults;
mod forms;
mod login;
mod missions;
mod transport;
mod users;

use super::state::utc;
use super::*;
use client::{Client, Reply};
use serde_json::{Value, json};

/// A device that most tests have.
const EMAIL: &str = "azaion-jetson-0042@azaion.com";
const PASSWORD: &str = "device-password-1";

/// Starts a server with that device.
fn start(options: Options) -> (DevApi, Client) {
    let api = DevApi::start(options).unwrap();
    api.add_user(EMAIL, PASSWORD, "CompanionPC");
    let client = Client::of(&api);
    (api, client)
}

fn generation(generation: Generation) -> Options {
    Options { generation, ..Options::default() }
}

fn log_in(client: &Client, email: &str, password: &str) -> Reply {
    let body = json!({"email": email, "password": password});
    client.post("/login", &body)
}

/// Returns a client with the admin's bearer token.
fn as_admin(client: &Client) -> Client {
    let reply = log_in(client, ADMIN_EMAIL, ADMIN_PASSWORD);
    client.with_bearer(reply.json()["token"].as_str().unwrap())
}
