//! After all scenarios: no output of any program contains a secret.
//!
//! `tests/run` ensures the order. The record has every run's arguments, standard output, standard error, and the
//! journal's entries; the output of `azaion-agent token` is excluded, because it is the token itself.

use aho_corasick::AhoCorasick;
use azaion_tests::record;

// Promise: no secret in argv, output, logs, errors or the journal.
#[test]
fn nothing_that_was_said_has_a_secret_in_it() -> anyhow::Result<()> {
    let (words, secrets) = record::read()?;
    assert!(
        words.len() > 50_000 && secrets.len() > 200,
        "{} bytes, {} secrets: run all scenarios first",
        words.len(),
        secrets.len()
    );
    for (number, secret) in secrets.iter().enumerate() {
        assert!(secret.len() >= 8, "secret {number} is too short to search for");
    }
    // All of them in one pass: thousands of secrets, and megabytes of text.
    if let Some(found) = AhoCorasick::new(&secrets)?.find(&words) {
        let around = words.get(found.start().saturating_sub(300)..found.start()).unwrap_or("…");
        panic!("secret {} was printed, after: {around}", found.pattern().as_usize());
    }
    Ok(())
}

// Promise: nor anything that looks like a token, whether it was cached or not.
#[test]
fn nothing_that_was_said_looks_like_a_token() -> anyhow::Result<()> {
    let (words, _) = record::read()?;
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let token = words.match_indices("eyJ").find(|(at, _)| {
        let tail = words.get(*at..).unwrap_or_default();
        let end = tail.find(|c| !is_part(c) && c != '.').unwrap_or(tail.len());
        tail.get(..end).unwrap_or_default().split('.').filter(|part| part.len() > 10).count() >= 2
    });
    assert!(token.is_none(), "at {token:?}: {:?}", token.and_then(|(at, _)| words.get(at.saturating_sub(300)..at)));
    Ok(())
}
