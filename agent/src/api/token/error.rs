//! Why a token is refused.

use crate::common::identity::ROLE;

/// Why a token is refused. No message repeats a claim's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's message says it")]
pub enum TokenError {
    #[error("it is not a JWT")]
    NotAJwt,
    #[error("its algorithm is not ES256")]
    Algorithm,
    #[error("it is signed with a shared secret though the server publishes keys")]
    KeyConfusion,
    #[error("the server publishes no key to check it with")]
    NoKeys,
    #[error(
        "its signature can't be checked, the server publishes no keys, and agent.toml says signature = \"required\""
    )]
    Unverifiable,
    #[error("the server publishes no key with its key id")]
    UnknownKey,
    #[error("its signature is wrong")]
    Signature,
    #[error("its header or its claims have a name twice")]
    Duplicate,
    #[error("its header asks for what is not known here (crit)")]
    Critical,
    #[error("its claims have not the expected form")]
    Claims,
    #[error("it does not say when it expires")]
    NoExpiry,
    #[error("it has expired; is the server's clock right?")]
    Expired,
    #[error("it is from the future; is the server's clock right?")]
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
