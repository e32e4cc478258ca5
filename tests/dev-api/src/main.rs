//! Starts the development admin API and prints how to use it; runs until Ctrl-C or `SIGTERM`.

use anyhow::Context as _;
use azaion_dev_api::{
    ADMIN_EMAIL, ADMIN_PASSWORD, Casing, ClaimNames, DevApi, Generation, Hashing, Limiter, Options, RoleForm, Tls,
};
use clap::Parser;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// The development admin API: a real HTTPS server with its own user database and CA.
#[derive(Parser)]
#[command(version)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own on the command line")]
struct Arguments {
    /// Generation of the admin API to emulate
    #[arg(long, value_enum, default_value_t = Generation::G2)]
    generation: Generation,
    /// Names of the token claims
    #[arg(long, value_enum, default_value_t = ClaimNames::Short)]
    claims: ClaimNames,
    /// Casing of the fields in successful answers
    #[arg(long, value_enum, default_value_t = Casing::Camel)]
    casing: Casing,
    /// Casing of the fields in errors
    #[arg(long, value_enum, default_value_t = Casing::Pascal)]
    error_casing: Casing,
    /// Form in which roles are accepted and returned
    #[arg(long, value_enum, default_value_t = RoleForm::Name)]
    role_form: RoleForm,
    /// Hash passwords with the smallest Argon2id parameters, for benchmarks
    #[arg(long)]
    cheap_hashing: bool,
    /// Disable login limits and account locking
    #[arg(long)]
    no_limits: bool,
    /// Address that the login limit counts
    #[arg(long, value_enum, default_value_t = Limiter::Client)]
    limiter: Limiter,
    /// Answer bad requests with problem+json of ASP.NET, without an error code of the API
    #[arg(long)]
    no_codes_in_400: bool,
    /// Provide PATCH /users/password, which the real servers very likely lack
    #[arg(long)]
    password_patch: bool,
    /// Disable DELETE /users/{email}
    #[arg(long)]
    no_delete_route: bool,
    /// Answer requests for keys as a cache does, with a list up to an hour old
    #[arg(long)]
    keys_cache: bool,
    /// Serve plain HTTP instead of HTTPS
    #[arg(long)]
    plain: bool,
    /// Lifetime of an access token in seconds [default: 4 h in G1, else 15 min]
    #[arg(long, value_name = "SECONDS")]
    token_lifetime: Option<u64>,
    /// Address to listen on; port 0 selects a free port
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Database file, created if missing [default: in memory]
    #[arg(long, value_name = "FILE")]
    database: Option<PathBuf>,
    /// Seconds added to the server's clock
    #[arg(long, value_name = "SECONDS", default_value_t = 0, allow_negative_numbers = true)]
    clock_offset: i64,
    /// Prefix of all paths, such as /admin
    #[arg(long, value_name = "PATH", default_value = "")]
    path_prefix: String,
}

impl From<Arguments> for Options {
    fn from(arguments: Arguments) -> Self {
        Self {
            generation: arguments.generation,
            claims: arguments.claims,
            casing: arguments.casing,
            error_casing: arguments.error_casing,
            role_form: arguments.role_form,
            hashing: if arguments.cheap_hashing { Hashing::Cheap } else { Hashing::Real },
            limits: !arguments.no_limits,
            limiter: arguments.limiter,
            codes_in_400: !arguments.no_codes_in_400,
            password_patch: arguments.password_patch,
            delete_route: !arguments.no_delete_route,
            token_lifetime: arguments.token_lifetime.map(Duration::from_secs),
            tls: if arguments.plain { Tls::Plain } else { Tls::Valid },
            listen: arguments.listen,
            database: arguments.database,
            clock_offset: arguments.clock_offset,
            path_prefix: arguments.path_prefix,
            keys_cache: arguments.keys_cache.then_some(Duration::from_hours(1)),
            ..Self::default()
        }
    }
}

fn main() -> anyhow::Result<()> {
    let api = DevApi::start(Arguments::parse().into())?;
    announce(&api).context("writing to standard output")?;
    tokio::runtime::Builder::new_current_thread().enable_io().build()?.block_on(told_to_stop())
}

/// Waits for Ctrl-C or `SIGTERM`; after either, the directory with the CA is removed.
async fn told_to_stop() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listening for signals")?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted.context("waiting for Ctrl-C"),
        _ = terminate.recv() => Ok(()),
    }
}

fn announce(api: &DevApi) -> std::io::Result<()> {
    let (url, ca) = (api.url(), api.ca_file());
    let ca = ca.display();
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "URL             {url}
CA file         {ca}
admin e-mail    {ADMIN_EMAIL}
admin password  {ADMIN_PASSWORD}

    mkdir -p rootfs
    AZAION_ADMIN_PASSWORD={ADMIN_PASSWORD} \\
      azaion-provision device AZJN-0042 --rootfs rootfs --owner current \\
      --api-url {url} --ca-file {ca} --admin-email {ADMIN_EMAIL}

Ctrl-C stops it."
    )?;
    out.flush()
}
