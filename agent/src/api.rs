//! The client of the admin API: URLs, calls, answers, tokens, retries.

mod es256;
pub mod fault;
pub mod http;
pub mod json;
pub mod keys;
pub mod proxy_url;
pub mod retry;
pub mod session;
pub mod token;
pub mod transport;
pub mod url;
