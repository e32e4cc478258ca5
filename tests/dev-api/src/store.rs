//! Users and sessions in an `SQLite` database.

use super::hashing::{random, random_guid, random_hex};
use super::state::lock;
use anyhow::Context as _;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use rusqlite::{Connection, ErrorCode, OptionalExtension as _, Row, Transaction, params};
use std::path::Path;
use std::sync::Mutex;

/// A refresh token lives 8 h from its issue, in milliseconds, …
const SLIDING: i64 = 8 * 3_600_000;
/// … but never longer than 12 h from the login, in milliseconds.
const ABSOLUTE: i64 = 12 * 3_600_000;

const SCHEMA: &str = "
PRAGMA foreign_keys = ON;
CREATE TABLE IF NOT EXISTS users (
    id TEXT NOT NULL UNIQUE,
    email TEXT NOT NULL UNIQUE COLLATE NOCASE,
    hash TEXT NOT NULL,
    role TEXT NOT NULL,
    enabled INTEGER NOT NULL DEFAULT 1,
    mfa INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE IF NOT EXISTS sessions (
    sid TEXT PRIMARY KEY,
    user TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    started INTEGER NOT NULL,
    ended INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE IF NOT EXISTS refresh_tokens (
    token TEXT PRIMARY KEY,
    sid TEXT NOT NULL REFERENCES sessions (sid) ON DELETE CASCADE,
    expires INTEGER NOT NULL,
    used INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE IF NOT EXISTS missions (
    sid TEXT PRIMARY KEY,
    aircraft TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    expires INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS revocations (
    sid TEXT PRIMARY KEY,
    at INTEGER NOT NULL,
    reason TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS hardware (
    user TEXT PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    hardware TEXT NOT NULL
) STRICT;
";

/// A row of the users.
#[derive(Debug, Clone)]
pub(super) struct Account {
    pub(super) id: String,
    pub(super) email: String,
    pub(super) hash: String,
    pub(super) role: String,
    pub(super) enabled: bool,
    pub(super) mfa: bool,
}

impl Account {
    const COLUMNS: &str = "users.id, email, hash, role, enabled, mfa";

    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: row.get(0)?,
            email: row.get(1)?,
            hash: row.get(2)?,
            role: row.get(3)?,
            enabled: row.get(4)?,
            mfa: row.get(5)?,
        })
    }
}

/// A session as its client sees it: its id and its current refresh token.
pub(super) struct Session {
    pub(super) sid: String,
    /// 43 characters base64url: 32 random bytes.
    pub(super) refresh_token: String,
    /// Milliseconds since 1970.
    pub(super) refresh_expires: i64,
}

/// The database. One connection: `SQLite` allows only one writer at a time anyway.
pub(super) struct Store(pub(super) Mutex<Connection>);

impl Store {
    /// Opens the file, or a database in memory.
    pub(super) fn open(path: Option<&Path>) -> anyhow::Result<Self> {
        let connection = match path {
            Some(path) => Connection::open(path).with_context(|| format!("opening the database {}", path.display()))?,
            None => Connection::open_in_memory().context("opening a database in memory")?,
        };
        if path.is_some() {
            connection.pragma_update(None, "journal_mode", "WAL").context("turning on the write-ahead log")?;
        }
        connection.execute_batch(SCHEMA).context("creating the tables")?;
        Ok(Self(Mutex::new(connection)))
    }

    /// Adds a user; `false` if the e-mail exists, also for concurrent calls.
    pub(super) fn add(&self, email: &str, hash: &str, role: &str) -> anyhow::Result<bool> {
        let inserted = lock(&self.0).execute(
            "INSERT INTO users (id, email, hash, role) VALUES (?1, ?2, ?3, ?4)",
            params![random_guid()?, email, hash, role],
        );
        match inserted {
            Ok(_) => Ok(true),
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => Ok(false),
            Err(error) => Err(error).context("adding a user"),
        }
    }

    pub(super) fn account(&self, email: &str) -> anyhow::Result<Option<Account>> {
        self.account_where("email", email)
    }

    /// Returns the user with this id.
    pub(super) fn account_of_id(&self, id: &str) -> anyhow::Result<Option<Account>> {
        self.account_where("users.id", id)
    }

    fn account_where(&self, column: &str, value: &str) -> anyhow::Result<Option<Account>> {
        let query = format!("SELECT {} FROM users WHERE {column} = ?1", Account::COLUMNS);
        lock(&self.0).query_row(&query, [value], Account::read).optional().context("reading a user")
    }

    /// Returns the users whose e-mail and role contain these texts, in the order they were created.
    pub(super) fn accounts(&self, email: &str, role: &str) -> anyhow::Result<Vec<Account>> {
        let query = format!(
            "SELECT {} FROM users WHERE instr(lower(email), lower(?1)) AND instr(role, ?2)
             ORDER BY rowid",
            Account::COLUMNS
        );
        let connection = lock(&self.0);
        let mut statement = connection.prepare(&query)?;
        let rows = statement.query_map([email, role], Account::read)?;
        rows.collect::<Result<_, _>>().context("listing users")
    }

    /// Sets the hash; `false` if there is no such user.
    pub(super) fn set_hash(&self, email: &str, hash: &str) -> anyhow::Result<bool> {
        self.change("UPDATE users SET hash = ?2 WHERE email = ?1", email, hash)
    }

    /// Sets the role; `false` if there is no such user.
    pub(super) fn set_role(&self, email: &str, role: &str) -> anyhow::Result<bool> {
        self.change("UPDATE users SET role = ?2 WHERE email = ?1", email, role)
    }

    /// Enables or disables a user; `false` if there is none.
    pub(super) fn set_enabled(&self, email: &str, on: bool) -> anyhow::Result<bool> {
        self.change("UPDATE users SET enabled = ?2 WHERE email = ?1", email, on)
    }

    /// Requires a second factor of a user; `false` if there is none.
    pub(super) fn set_mfa(&self, email: &str, on: bool) -> anyhow::Result<bool> {
        self.change("UPDATE users SET mfa = ?2 WHERE email = ?1", email, on)
    }

    /// Deletes a user with all sessions; `false` if there is none.
    pub(super) fn delete(&self, email: &str) -> anyhow::Result<bool> {
        let changed = lock(&self.0).execute("DELETE FROM users WHERE email = ?1", [email])?;
        Ok(changed == 1)
    }

    fn change(&self, statement: &str, email: &str, value: impl rusqlite::ToSql) -> anyhow::Result<bool> {
        let changed = lock(&self.0).execute(statement, params![email, value])?;
        Ok(changed == 1)
    }

    /// Begins a session at a login. Times are in milliseconds since 1970.
    pub(super) fn begin_session(&self, user: &str, now: i64) -> anyhow::Result<Session> {
        let sid = random_hex::<16>()?;
        let mut connection = lock(&self.0);
        let transaction = connection.transaction()?;
        transaction
            .execute("INSERT INTO sessions (sid, user, started) VALUES (?1, ?2, ?3)", params![sid, user, now])?;
        let session = issue(&transaction, sid, now, now)?;
        transaction.commit()?;
        Ok(session)
    }

    /// Exchanges a refresh token for the next one of its session. A token that was exchanged before ends the session:
    /// either its owner or a thief holds a newer one.
    pub(super) fn refresh(&self, token: &str, now: i64) -> anyhow::Result<Option<(Account, Session)>> {
        let mut connection = lock(&self.0);
        let transaction = connection.transaction()?;
        let query = format!(
            "SELECT {}, sid, started, ended, expires, used FROM refresh_tokens
             JOIN sessions USING (sid) JOIN users ON users.id = user WHERE token = ?1",
            Account::COLUMNS
        );
        let found =
            transaction.query_row(&query, [token], |row| Ok((Account::read(row)?, Issued::read(row)?))).optional()?;
        let Some((account, issued)) = found else {
            return Ok(None);
        };
        if issued.used {
            transaction.execute("UPDATE sessions SET ended = 1 WHERE sid = ?1", [issued.sid])?;
            transaction.commit()?;
            return Ok(None);
        }
        if issued.ended || issued.expires <= now || !account.enabled {
            return Ok(None);
        }
        transaction.execute("UPDATE refresh_tokens SET used = 1 WHERE token = ?1", [token])?;
        let session = issue(&transaction, issued.sid, issued.started, now)?;
        transaction.commit()?;
        Ok(Some((account, session)))
    }
}

/// A refresh token with its session.
struct Issued {
    sid: String,
    started: i64,
    ended: bool,
    expires: i64,
    used: bool,
}

impl Issued {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            sid: row.get("sid")?,
            started: row.get("started")?,
            ended: row.get("ended")?,
            expires: row.get("expires")?,
            used: row.get("used")?,
        })
    }
}

/// Issues the next refresh token of a session.
fn issue(transaction: &Transaction<'_>, sid: String, started: i64, now: i64) -> anyhow::Result<Session> {
    let session = Session {
        sid,
        refresh_token: BASE64_URL_SAFE_NO_PAD.encode(random::<32>()?),
        refresh_expires: (now + SLIDING).min(started + ABSOLUTE),
    };
    transaction.execute(
        "INSERT INTO refresh_tokens (token, sid, expires) VALUES (?1, ?2, ?3)",
        params![session.refresh_token, session.sid, session.refresh_expires],
    )?;
    Ok(session)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;

    fn with_user() -> (Store, Account) {
        let store = Store::open(None).unwrap();
        assert!(store.add("one@azaion.com", "hash", "CompanionPC").unwrap());
        let account = store.account("one@azaion.com").unwrap().unwrap();
        (store, account)
    }

    /// Two users never share an e-mail, whatever its casing.
    #[test]
    fn emails_are_unique() {
        let (store, _) = with_user();
        assert!(!store.add("ONE@azaion.com", "other", "Admin").unwrap());
        assert_eq!(store.accounts("", "").unwrap().len(), 1);
        assert_eq!(store.account("One@azaion.com").unwrap().unwrap().hash, "hash");
    }

    /// A refresh token lives 8 h, renewed by each use, but at most 12 h from the login.
    #[test]
    fn sessions_slide_and_end() {
        let (store, account) = with_user();
        let first = store.begin_session(&account.id, 0).unwrap();
        assert_eq!(first.refresh_token.len(), 43);
        assert_eq!(first.refresh_expires, 8 * HOUR);
        let late = store.begin_session(&account.id, 0).unwrap();
        assert!(store.refresh(&late.refresh_token, 8 * HOUR).unwrap().is_none());
        let (_, second) = store.refresh(&first.refresh_token, 7 * HOUR).unwrap().unwrap();
        assert_eq!(second.sid, first.sid);
        assert_eq!(second.refresh_expires, 12 * HOUR);
        assert!(store.refresh(&second.refresh_token, 12 * HOUR).unwrap().is_none());
    }

    /// A refresh token works once; reusing it also ends the session's newer tokens, and no other session.
    #[test]
    fn reuse_ends_the_family() {
        let (store, account) = with_user();
        let first = store.begin_session(&account.id, 0).unwrap();
        let other = store.begin_session(&account.id, 0).unwrap();
        let (_, second) = store.refresh(&first.refresh_token, 1).unwrap().unwrap();
        assert!(store.refresh(&first.refresh_token, 2).unwrap().is_none());
        assert!(store.refresh(&second.refresh_token, 3).unwrap().is_none());
        assert!(store.refresh(&other.refresh_token, 4).unwrap().is_some());
    }

    /// A database file keeps the users for the next server.
    #[test]
    fn a_file_lasts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users.db");
        let store = Store::open(Some(&path)).unwrap();
        assert!(store.add("one@azaion.com", "hash", "CompanionPC").unwrap());
        drop(store);
        let store = Store::open(Some(&path)).unwrap();
        assert!(store.account("one@azaion.com").unwrap().is_some());
    }
}
