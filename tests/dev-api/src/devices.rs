//! `POST /devices`: the server creates the next device identity itself.

use super::Generation;
use super::answers::{self, Answer, object};
use super::hashing::random_hex;
use super::routes::{DEVICE_ROLE, Handled, refusal};
use super::state::{State, lock};
use super::store::Store;
use anyhow::Context as _;
use hyper::StatusCode;
use rusqlite::OptionalExtension as _;

/// Position of the number in the e-mail of a device: characters 5 to 8.
const NUMBER: std::ops::Range<usize> = 4..8;

/// Creates a device with a password that is returned only in this answer. 409 with 20 if the next number's e-mail
/// exists, because of a concurrent call or a user created by hand.
pub(super) fn add(state: &State) -> Handled {
    let newest = state.store.newest_email(DEVICE_ROLE)?;
    // A server error (500) for every caller until the newest device has another e-mail.
    let serial = format!("azj-{:04}", next_number(newest.as_deref())?);
    let (email, password) = (format!("{serial}@azaion.com"), random_hex::<16>()?);
    let hash = state.options.hashing.hash(&password)?;
    if !state.store.add(&email, &hash, DEVICE_ROLE)? {
        return Err(refusal(state, &answers::EMAIL_EXISTS).into());
    }
    let fields = [("serial", serial.into()), ("email", email.into()), ("password", password.into())];
    // Clients must accept both.
    let status = match state.options.generation {
        Generation::G1 | Generation::G2 => StatusCode::OK,
        Generation::G2b => StatusCode::CREATED,
    };
    Ok(Answer::json(status, &object(state.options.casing, fields)))
}

/// Returns the number in the newest device's e-mail plus one, and 1 for the first device. Fails if there is no number,
/// as .NET's `int.Parse` does.
fn next_number(newest: Option<&str>) -> anyhow::Result<u32> {
    let Some(email) = newest else { return Ok(1) };
    let characters: String = email.chars().skip(NUMBER.start).take(NUMBER.len()).collect();
    let is_number = characters.len() == NUMBER.len() && characters.bytes().all(|byte| byte.is_ascii_digit());
    let number = is_number.then(|| characters.parse::<u32>().ok()).flatten();
    Ok(number.with_context(|| format!("\"{characters}\" in the newest device's e-mail is not a number"))? + 1)
}

impl Store {
    /// Returns the e-mail of the newest user with this role.
    fn newest_email(&self, role: &str) -> anyhow::Result<Option<String>> {
        let query = "SELECT email FROM users WHERE role = ?1 ORDER BY rowid DESC LIMIT 1";
        lock(&self.0).query_row(query, [role], |row| row.get(0)).optional().context("finding the newest device")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Promise: the number comes from characters 5 to 8 of the newest device's e-mail; if those are not a number, there
    // is none.
    #[test]
    fn numbers() {
        for (newest, next) in [
            (None, Some(1)),
            (Some("azj-0041@azaion.com"), Some(42)),
            (Some("azj-9999@azaion.com"), Some(10_000)),
            // The fifth digit is not read.
            (Some("azj-10000@azaion.com"), Some(1001)),
            (Some("azaion-jetson-0042@azaion.com"), None),
            (Some("a@b.com"), None),
        ] {
            assert_eq!(next_number(newest).ok(), next, "{newest:?}");
        }
    }
}
