//! The routes on users.

use super::answers::{self, Answer, object};
use super::routes::{Call, Handled, Stop, body, caller, failure, parameter, refusal};
use super::state::State;
use super::store::Account;
use super::{Generation, RoleForm};
use hyper::StatusCode;
use serde_json::Value;

/// Minimum length of e-mails and passwords in characters.
const SHORTEST: usize = 8;
/// Maximum length of e-mails in characters.
const LONGEST_EMAIL: usize = 160;

fn described(state: &State, account: &Account) -> Value {
    object(
        state.options.casing,
        [
            ("id", account.id.as_str().into()),
            ("email", account.email.as_str().into()),
            ("role", state.options.role_form.write(&account.role)),
            ("isEnabled", account.enabled.into()),
        ],
    )
}

/// `GET /users/current`.
pub(super) fn current(state: &State, call: &Call) -> Handled {
    let caller = caller(state, call)?;
    match state.store.account(&caller.email)? {
        Some(account) => Ok(Answer::json(StatusCode::OK, &described(state, &account))),
        None => Err(failure(state, StatusCode::UNAUTHORIZED, "The user is gone.").into()),
    }
}

/// `GET /users?searchEmail=…&searchRole=…`.
pub(super) fn list(state: &State, call: &Call) -> Handled {
    let parameter = |name: &str| parameter(call, name).unwrap_or_default();
    let accounts = state.store.accounts(&parameter("searchEmail"), &parameter("searchRole"))?;
    let list: Vec<Value> = accounts.iter().map(|a| described(state, a)).collect();
    Ok(Answer::json(StatusCode::OK, &list.into()))
}

#[derive(serde::Deserialize)]
struct NewUser {
    email: String,
    password: String,
    role: Value,
}

/// `POST /users`.
pub(super) fn create(state: &State, call: &Call) -> Handled {
    let user: NewUser = body(state, call)?;
    // .NET parses the complete body before it validates its content.
    let role = state.options.role_form.read(&user.role).ok_or_else(|| no_such_role(state))?;
    check_email(state, &user.email)?;
    check_password(state, &user.password)?;
    let hash = state.options.hashing.hash(&user.password)?;
    if !state.store.add(&user.email, &hash, &role)? {
        return Err(refusal(state, &answers::EMAIL_EXISTS).into());
    }
    // Clients must accept both.
    Ok(Answer::empty(match state.options.generation {
        Generation::G1 => StatusCode::OK,
        Generation::G2 | Generation::G2b => StatusCode::CREATED,
    }))
}

#[derive(serde::Deserialize)]
struct NewPassword {
    email: String,
    password: String,
}

/// `PATCH /users/password`.
pub(super) fn set_password(state: &State, call: &Call) -> Handled {
    let user: NewPassword = body(state, call)?;
    check_password(state, &user.password)?;
    let hash = state.options.hashing.hash(&user.password)?;
    changed(state, state.store.set_hash(&user.email, &hash)?, or_no_content(state))
}

/// `PUT /users/{email}/set-role/{role}`; in a path .NET accepts name and number alike.
pub(super) fn set_role(state: &State, email: &str, role: &str) -> Handled {
    let role = role.parse().map_or_else(|_| Value::from(role), |number: u32| number.into());
    let role = RoleForm::Either.read(&role).ok_or_else(|| no_such_role(state))?;
    changed(state, state.store.set_role(email, &role)?, StatusCode::OK)
}

/// `PUT /users/{email}/enable` and `/disable`.
pub(super) fn set_enabled(state: &State, email: &str, on: bool) -> Handled {
    changed(state, state.store.set_enabled(email, on)?, StatusCode::OK)
}

/// `DELETE /users/{email}`: permanent, with all sessions.
pub(super) fn delete(state: &State, email: &str) -> Handled {
    changed(state, state.store.delete(email)?, or_no_content(state))
}

/// Returns the answer to a change: done, or there is no such user.
pub(super) fn changed(state: &State, is_done: bool, done: StatusCode) -> Handled {
    if is_done { Ok(Answer::empty(done)) } else { Err(refusal(state, &answers::NO_SUCH_EMAIL).into()) }
}

/// Returns 200 in G1, 204 later: clients must accept both.
pub(super) fn or_no_content(state: &State) -> StatusCode {
    match state.options.generation {
        Generation::G1 => StatusCode::OK,
        Generation::G2 | Generation::G2b => StatusCode::NO_CONTENT,
    }
}

fn check_email(state: &State, email: &str) -> Result<(), Stop> {
    if !(SHORTEST..=LONGEST_EMAIL).contains(&email.chars().count()) {
        return Err(refusal(state, &answers::EMAIL_LENGTH).into());
    }
    match email.split_once('@') {
        Some((name, domain)) if !name.is_empty() && !domain.is_empty() => Ok(()),
        _ => Err(refusal(state, &answers::WRONG_EMAIL).into()),
    }
}

fn check_password(state: &State, password: &str) -> Result<(), Stop> {
    if password.chars().count() < SHORTEST {
        return Err(refusal(state, &answers::PASSWORD_LENGTH).into());
    }
    Ok(())
}

fn no_such_role(state: &State) -> Stop {
    failure(state, StatusCode::BAD_REQUEST, "No such role.").into()
}
