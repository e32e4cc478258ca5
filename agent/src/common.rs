//! Code that both programs use without the API: identities, `device.conf`, files, clocks, exit codes, text.

pub mod check;
pub mod clock;
pub mod device_conf;
pub mod exit;
pub mod failures;
pub mod hardening;
pub mod history;
pub mod identity;
pub mod plain_text;
pub mod private_file;
#[cfg(feature = "schema")]
pub mod schema;
pub mod stderr_log;
pub mod usage;
