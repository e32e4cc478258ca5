//! Errors of token validation.

use crate::common::identity::ROLE;

/// The reason why a token is refused. No message repeats a claim's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's message says it")]
pub enum TokenError {
    #[error("it is not a JWT")]
    NotAJwt,
    #[error("its algorithm is not ES256")]
    Algorithm,
    #[error("it is signed with a shared secret though the server publishes keys")]
    KeyConfusion,
    #[error("the server publishes no key to verify it with")]
    NoKeys,
    #[error(
        "its signature can't be verified, because the server publishes no keys, and agent.toml has signature = \"required\""
    )]
    Unverifiable,
    #[error("the server publishes no key with its key id")]
    UnknownKey,
    #[error("its signature is wrong")]
    Signature,
    #[error("its header or its claims have a duplicate name")]
    Duplicate,
    #[error("its header requires an extension that is not supported (crit)")]
    Critical,
    #[error("its claims do not have the expected form")]
    Claims,
    #[error("it does not say when it expires")]
    NoExpiry,
    #[error("it has expired; check the server's clock")]
    Expired,
    #[error("it is not valid yet; check the server's clock")]
    FromTheFuture,
    #[error("its issuer is not the expected one (issuer in agent.toml)")]
    Issuer,
    #[error("its audience is not the expected one (audience in agent.toml)")]
    Audience,
    #[error("its role is not {ROLE}; correct the account's role on the admin API")]
    Role,
    #[error("it is for another account's e-mail")]
    Email,
}
