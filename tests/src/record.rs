//! What the programs have printed in this test process, and the secrets they used: no output may contain a secret.
//!
//! Both are compared as soon as they are known, in either order: a password is often known only after the run that
//! created it.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use anyhow::ensure;

static RECORD: Mutex<Record> = Mutex::new(Record { words: String::new(), secrets: BTreeSet::new() });

/// Records the output of a program.
///
/// # Errors
/// It contains a secret, or something that looks like a token.
pub fn words(words: &str) -> anyhow::Result<()> {
    RECORD.lock().unwrap_or_else(PoisonError::into_inner).add_words(words)
}

/// Records a secret that must not appear in any output.
///
/// # Errors
/// An earlier output contains it, or it is too short to search for.
pub fn secret(secret: &str) -> anyhow::Result<()> {
    RECORD.lock().unwrap_or_else(PoisonError::into_inner).add_secret(secret)
}

#[derive(Default)]
struct Record {
    words: String,
    secrets: BTreeSet<String>,
}

impl Record {
    fn add_words(&mut self, words: &str) -> anyhow::Result<()> {
        for secret in &self.secrets {
            refuse(words, "a secret", words.find(secret.as_str()))?;
        }
        refuse(words, "a token", token_in(words))?;
        self.words.push_str(words);
        self.words.push('\n');
        Ok(())
    }

    fn add_secret(&mut self, secret: &str) -> anyhow::Result<()> {
        ensure!(secret.len() >= 8, "a secret is too short to search for");
        if self.secrets.insert(secret.to_owned()) {
            refuse(&self.words, "a secret", self.words.find(secret))?;
        }
        Ok(())
    }
}

/// Fails if something was found; the message quotes only what stands before it.
fn refuse(words: &str, what: &str, found: Option<usize>) -> anyhow::Result<()> {
    let before = found.map(|at| &words[words.floor_char_boundary(at.saturating_sub(300))..at]);
    ensure!(before.is_none(), "{what} was printed, after: {}", before.unwrap_or_default());
    Ok(())
}

/// Returns where something stands that looks like a JWT: three parts, the first a JSON object in base64.
fn token_in(words: &str) -> Option<usize> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_' || c == '.';
    let is_token = |tail: &str| {
        let token = tail.split(|c| !is_part(c)).next().unwrap_or_default();
        token.split('.').filter(|part| part.len() > 10).count() >= 2
    };
    words.match_indices("eyJ").map(|(at, _)| at).find(|at| is_token(words.split_at(*at).1))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWORD: &str = "a-password-of-a-device";

    // Promise: a secret in an output fails the test, whichever of them is known first, and the message does not repeat it.
    #[test]
    fn a_secret_is_found_in_either_order() {
        let said = format!("account created: {PASSWORD}");
        let mut record = Record::default();
        record.add_secret(PASSWORD).unwrap();
        let before = record.add_words(&said).unwrap_err().to_string();

        let mut record = Record::default();
        record.add_words(&said).unwrap();
        let after = record.add_secret(PASSWORD).unwrap_err().to_string();
        for message in [before, after] {
            assert_eq!(message, "a secret was printed, after: account created: ");
        }
    }

    // Promise: whatever looks like a token fails the test, known or not; other words in base64 do not.
    #[test]
    fn a_token_is_found() {
        let mut record = Record::default();
        record.add_words("eyJhbGciOiJFUzI1NiJ9 is a header, 1.2.3 a version").unwrap();
        assert!(record.add_words("token eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl").is_err());
    }
}
