//! `cargo demo`: one device on this machine, from its serial to the token that its programs read.
//!
//! Both programs are in this one binary, which runs itself under the name of one of them: that way one build makes everything.

#![expect(clippy::print_stdout, reason = "a demonstration prints")]

use std::env;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, ensure};
use azaion_dev_api::{ADMIN_EMAIL, ADMIN_PASSWORD, DevApi, Options};
use serde_json::Value;
use tempfile::TempDir;

const SERIAL: &str = "AZJN-0042";
const EMAIL: &str = "azaion-jetson-0042@azaion.com";
const PROVISION: &str = "azaion-provision";
const AGENT: &str = "azaion-agent";

fn main() -> ExitCode {
    let name = env::args_os().next().map(PathBuf::from).unwrap_or_default();
    if name.ends_with(PROVISION) {
        return azaion_provision::run().into();
    }
    if name.ends_with(AGENT) {
        return azaion_agent::cli::run_command_line().into();
    }
    match demonstrate() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("\nThe demo failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn demonstrate() -> anyhow::Result<()> {
    let demo = Demo::start()?;
    println!("The development admin API listens on {} (TLS).", demo.api.url());

    step(
        1,
        "On the flashing host: create the account of the device and write its credentials into the root file system.",
    );
    let device = ["device", SERIAL, "--rootfs", "ROOTFS", "--owner", "current"];
    demo.run_with_api(&device)?;
    let user = demo.api.user(EMAIL).context("the account exists")?;
    println!("  The API now has the account {}, role {}.", user.email, user.role);

    step(2, "Inspect the root file system. The password is never printed.");
    demo.run(PROVISION, &["inspect", "ROOTFS"])?;

    step(3, "Run the same command again, by mistake or after a power cut: no second account, no change.");
    demo.run_with_api(&device)?;

    step(4, "On the device, at its first boot: log in, validate the token, write the token cache, report readiness.");
    demo.run(AGENT, &["boot", "--root", "ROOTFS"])?;
    demo.run(AGENT, &["status", "--root", "ROOTFS"])?;

    step(5, "The readiness report, and the token cache that other programs read:");
    demo.print_file("run/azaion/ready.json")?;
    demo.print_file("run/azaion/token.json")?;

    step(6, "On the flashing host, after flashing: remove the credentials, so that the next device cannot get them.");
    demo.run(PROVISION, &["clear", "ROOTFS"])?;
    println!("\nDone. All files were in a temporary directory, which is removed now.");
    Ok(())
}

fn step(number: usize, text: &str) {
    println!("\n{number}. {text}");
}

/// A development API and a root file system in a temporary directory.
struct Demo {
    api: DevApi,
    directory: TempDir,
}

impl Demo {
    #[expect(clippy::disallowed_methods, reason = "the demo's own files")]
    fn start() -> anyhow::Result<Self> {
        let demo = Self { api: DevApi::start(Options::default())?, directory: tempfile::tempdir()? };
        for name in ["bin", "rootfs/etc/azaion", "rootfs/boot", "rootfs/usr"] {
            fs::create_dir_all(demo.path(name))?;
        }
        let this = env::current_exe().context("the path of this program")?;
        for name in [PROVISION, AGENT] {
            symlink(&this, demo.path("bin").join(name))?;
        }
        fs::write(demo.path("PASSWORD_FILE"), ADMIN_PASSWORD)?;
        fs::set_permissions(demo.path("PASSWORD_FILE"), fs::Permissions::from_mode(0o600))?;
        fs::copy(demo.api.ca_file(), demo.path("rootfs/etc/azaion/ca.pem"))?;
        fs::write(demo.path("rootfs/etc/azaion/agent.toml"), "ca_file = \"/etc/azaion/ca.pem\"\n")?;
        Ok(demo)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Runs `azaion-provision` with the options that reach the API as its admin.
    fn run_with_api(&self, arguments: &[&str]) -> anyhow::Result<()> {
        println!(
            "  $ {PROVISION} {} --api-url … --ca-file … --admin-email … --admin-password-file …",
            arguments.join(" ")
        );
        let ca = self.api.ca_file();
        let mut command = self.command(PROVISION, arguments);
        command.args(["--api-url", &self.api.url(), "--admin-email", ADMIN_EMAIL]).arg("--ca-file").arg(ca);
        self.print_output(command.arg("--admin-password-file").arg(self.path("PASSWORD_FILE")))
    }

    fn run(&self, program: &str, arguments: &[&str]) -> anyhow::Result<()> {
        println!("  $ {program} {}", arguments.join(" "));
        self.print_output(&mut self.command(program, arguments))
    }

    /// A command with a clean environment; `ROOTFS` stands for the root file system.
    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.path("bin").join(program));
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        for argument in arguments {
            match *argument {
                "ROOTFS" => command.arg(self.path("rootfs")),
                other => command.arg(other),
            };
        }
        command
    }

    fn print_output(&self, command: &mut Command) -> anyhow::Result<()> {
        let output = command.output().with_context(|| format!("running {command:?}"))?;
        let text = [output.stdout, output.stderr].concat();
        let rootfs = self.path("rootfs").display().to_string();
        for line in String::from_utf8_lossy(&text).replace(&rootfs, "ROOTFS").lines() {
            println!("    {line}");
        }
        ensure!(output.status.success(), "the last command ended with {}", output.status);
        Ok(())
    }

    /// Prints a JSON file of the device with its mode; long values such as the token are cut.
    fn print_file(&self, name: &str) -> anyhow::Result<()> {
        let path: &Path = &self.path("rootfs").join(name);
        let mode = fs::metadata(path).with_context(|| name.to_owned())?.permissions().mode() & 0o7777;
        println!("  /{name}, mode {mode:04o}");
        let content: Value = serde_json::from_slice(&fs::read(path)?).with_context(|| name.to_owned())?;
        for (key, value) in content.as_object().into_iter().flatten() {
            let text = value.to_string();
            let cut =
                if text.len() > 60 { format!("{}…\"", text.chars().take(24).collect::<String>()) } else { text };
            println!("    {key:<20} {cut}");
        }
        Ok(())
    }
}
