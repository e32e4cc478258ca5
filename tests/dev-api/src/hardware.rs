//! G1 binds a user to one machine at the first call of `/resources/check` or `/resources/get`, which later generations
//! don't have. The other purposes of these routes (encrypted files for the loader) are not implemented.

use super::answers::{self, Answer};
use super::routes::{Call, Handled, body, caller, failure, refusal};
use super::state::{State, lock};
use super::store::Store;
use super::users::changed;
use super::{DevApi, must};
use anyhow::Context as _;
use hyper::StatusCode;
use rusqlite::{OptionalExtension as _, params};

impl Store {
    /// Returns the machine that a user is bound to.
    fn hardware(&self, email: &str) -> anyhow::Result<Option<String>> {
        let query = "SELECT hardware FROM hardware JOIN users ON users.id = user WHERE email = ?1";
        lock(&self.0).query_row(query, [email], |row| row.get(0)).optional().context("reading the hardware of a user")
    }

    /// Binds an unbound user to this machine.
    fn bind_hardware(&self, email: &str, hardware: &str) -> anyhow::Result<()> {
        let insert = "INSERT OR IGNORE INTO hardware (user, hardware) SELECT id, ?2 FROM users WHERE email = ?1";
        lock(&self.0).execute(insert, params![email, hardware]).map(drop).context("binding a user to hardware")
    }

    /// Removes the binding of a user.
    fn unbind_hardware(&self, email: &str) -> anyhow::Result<()> {
        let delete = "DELETE FROM hardware WHERE user = (SELECT id FROM users WHERE email = ?1)";
        lock(&self.0).execute(delete, [email]).map(drop).context("removing the hardware binding of a user")
    }
}

#[derive(serde::Deserialize)]
struct Check {
    hardware: String,
}

/// `POST /resources/check`.
pub(super) fn check(state: &State, call: &Call) -> Handled {
    let caller = caller(state, call)?;
    let Check { hardware } = body(state, call)?;
    bind(state, &caller.email, &hardware)?;
    Ok(Answer::empty(StatusCode::OK))
}

#[derive(serde::Deserialize)]
struct Get {
    password: String,
    hardware: String,
}

/// `POST /resources/get` and `POST /resources/get/{folder}`, which require the password besides the token; the file is
/// empty here.
pub(super) fn get(state: &State, call: &Call) -> Handled {
    let caller = caller(state, call)?;
    let Get { password, hardware } = body(state, call)?;
    let account = state.store.account(&caller.email)?;
    if !account.is_some_and(|account| super::hashing::verify(&password, &account.hash)) {
        return Err(refusal(state, &answers::WRONG_PASSWORD).into());
    }
    bind(state, &caller.email, &hardware)?;
    Ok(Answer::empty(StatusCode::OK).with("content-type", "application/octet-stream"))
}

/// Binds the user to the machine at the first call; later calls must come from the same machine.
fn bind(state: &State, email: &str, hardware: &str) -> Result<(), super::routes::Stop> {
    state.store.bind_hardware(email, hardware)?;
    match state.store.hardware(email)? {
        Some(bound) if bound == hardware => Ok(()),
        Some(_) => Err(refusal(state, &answers::OTHER_HARDWARE).into()),
        None => Err(failure(state, StatusCode::UNAUTHORIZED, "The user is gone.").into()),
    }
}

#[derive(serde::Deserialize)]
struct SetHardware {
    #[serde(alias = "Email")]
    email: String,
    /// `null` removes the binding.
    #[serde(alias = "Hardware")]
    hardware: Option<String>,
}

/// `PUT /users/hardware/set`.
pub(super) fn set(state: &State, call: &Call) -> Handled {
    let wanted: SetHardware = body(state, call)?;
    let is_there = state.store.account(&wanted.email)?.is_some();
    state.store.unbind_hardware(&wanted.email)?;
    if let Some(hardware) = &wanted.hardware {
        state.store.bind_hardware(&wanted.email, hardware)?;
    }
    changed(state, is_there, StatusCode::OK)
}

impl DevApi {
    /// Returns the machine that a user is bound to, in G1.
    pub fn hardware_of(&self, email: &str) -> Option<String> {
        must(self.state.store.hardware(email))
    }
}
