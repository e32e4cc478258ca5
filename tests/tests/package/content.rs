//! The content of the package.

use std::fs;
use std::path::Path;
use std::process::Command;

use azaion_tests::programs::{arm64_package, native, output, target_dir, workspace};
use azaion_tests::station::Station;

use crate::tree::{EPOCH, build};

/// Every file of the package: mode, and the name or the link.
const CONTENT: [&str; 42] = [
    "drwxr-xr-x root/root ./",
    "drwxr-xr-x root/root ./etc/",
    "drwxr-xr-x root/root ./etc/azaion/",
    "drwxr-xr-x root/root ./usr/",
    "drwxr-xr-x root/root ./usr/bin/",
    "-rwxr-xr-x root/root ./usr/bin/azaion-agent",
    "drwxr-xr-x root/root ./usr/lib/",
    "drwxr-xr-x root/root ./usr/lib/systemd/",
    "drwxr-xr-x root/root ./usr/lib/systemd/catalog/",
    "-rw-r--r-- root/root ./usr/lib/systemd/catalog/azaion-agent.catalog",
    "drwxr-xr-x root/root ./usr/lib/systemd/system/",
    "-rw-r--r-- root/root ./usr/lib/systemd/system/azaion-agent-token.socket",
    "-rw-r--r-- root/root ./usr/lib/systemd/system/azaion-agent-token@.service",
    "-rw-r--r-- root/root ./usr/lib/systemd/system/azaion-agent.service",
    "-rw-r--r-- root/root ./usr/lib/systemd/system/azaion-agent.timer",
    "-rw-r--r-- root/root ./usr/lib/systemd/system/azaion-catalog.service",
    "-rw-r--r-- root/root ./usr/lib/systemd/system/azaion-clock.service",
    "-rw-r--r-- root/root ./usr/lib/systemd/system/azaion-clock.timer",
    "-rw-r--r-- root/root ./usr/lib/systemd/system/azaion-setup.service",
    "drwxr-xr-x root/root ./usr/lib/systemd/system/basic.target.wants/",
    "drwxr-xr-x root/root ./usr/lib/systemd/system/sockets.target.wants/",
    "drwxr-xr-x root/root ./usr/lib/systemd/system/timers.target.wants/",
    "drwxr-xr-x root/root ./usr/lib/sysusers.d/",
    "-rw-r--r-- root/root ./usr/lib/sysusers.d/azaion.conf",
    "drwxr-xr-x root/root ./usr/share/",
    "drwxr-xr-x root/root ./usr/share/doc/",
    "drwxr-xr-x root/root ./usr/share/doc/azaion-agent/",
    "-rw-r--r-- root/root ./usr/share/doc/azaion-agent/changelog.gz",
    "-rw-r--r-- root/root ./usr/share/doc/azaion-agent/copyright",
    "drwxr-xr-x root/root ./usr/share/doc/azaion-agent/examples/",
    "-rw-r--r-- root/root ./usr/share/doc/azaion-agent/examples/agent.toml",
    "-rw-r--r-- root/root ./usr/share/doc/azaion-agent/libraries.txt",
    "-rw-r--r-- root/root ./usr/share/doc/azaion-agent/sbom.cdx.json",
    "drwxr-xr-x root/root ./usr/share/man/",
    "drwxr-xr-x root/root ./usr/share/man/man5/",
    "-rw-r--r-- root/root ./usr/share/man/man5/device.conf.5.gz",
    "drwxr-xr-x root/root ./usr/share/man/man8/",
    "-rw-r--r-- root/root ./usr/share/man/man8/azaion-agent.8.gz",
    "lrwxrwxrwx root/root ./usr/lib/systemd/system/basic.target.wants/azaion-setup.service -> ../azaion-setup.service",
    "lrwxrwxrwx root/root ./usr/lib/systemd/system/sockets.target.wants/azaion-agent-token.socket -> ../azaion-agent-token.socket",
    "lrwxrwxrwx root/root ./usr/lib/systemd/system/timers.target.wants/azaion-agent.timer -> ../azaion-agent.timer",
    "lrwxrwxrwx root/root ./usr/lib/systemd/system/timers.target.wants/azaion-clock.timer -> ../azaion-clock.timer",
];

// Promise: `.ci/package` creates the package for arm64 in target/dist/; it has exactly these files, all owned by root,
// and none of them under /lib, which is a symlink on a merged system.
#[test]
fn the_package_has_what_it_promises() -> anyhow::Result<()> {
    let package = arm64_package()?;
    assert!(package.starts_with(target_dir().join("dist")), "{}", package.display());
    let name = package.file_name().unwrap_or_default().to_string_lossy().into_owned();
    assert!(name.starts_with("azaion-agent_") && name.ends_with("_arm64.deb"), "{name}");
    let listing = output(Command::new("dpkg-deb").arg("-c").arg(package))?;
    let listed: Vec<String> = listing
        .lines()
        .map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            [&words[..2], &words[5..]].concat().join(" ")
        })
        .collect();
    assert_eq!(listed, CONTENT, "{listing}");
    let field = |name| output(Command::new("dpkg-deb").arg("-f").arg(package).arg(name));
    assert_eq!((field("Package")?.trim(), field("Architecture")?.trim()), ("azaion-agent", "arm64"));
    let text = output(Command::new("dpkg-deb").arg("-I").arg(package))?;
    for script in ["postinst", "prerm", "postrm", "md5sums"] {
        assert!(text.contains(script), "{text}");
    }
    println!("{name}: {} bytes", fs::metadata(package)?.len());
    Ok(())
}

// Promise: the same binary produces the same package for a SOURCE_DATE_EPOCH, independent of user and directory.
#[test]
#[cfg_attr(not(long), ignore = "long: ./tests/run --all")]
fn packing_is_reproducible() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let binary = native()?.join("azaion-agent");
    let first = build(&binary, "amd64", &folder.path().join("one"), &["1"])?;
    let line = "umask 077; exec agent/debian/build \"$@\" 1";
    let mut other = Command::new("sh");
    other.current_dir(workspace()).args(["-c", line, "sh"]).arg(&binary).arg("amd64").arg(folder.path().join("two"));
    let second = output(other.env("SOURCE_DATE_EPOCH", EPOCH).env("TZ", "Asia/Tokyo").env("LC_ALL", "C"))?;
    assert!(fs::read(first)? == fs::read(second.trim())?, "two packages of one binary differ");
    Ok(())
}

// Promise: unpacking alone enables timer and socket, and does not replace the symlink /lib of a merged system.
#[test]
#[cfg_attr(not(long), ignore = "long: ./tests/run --all")]
fn unpacking_is_a_complete_installation() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let package = build(&native()?.join("azaion-agent"), "amd64", folder.path(), &[])?;
    let root = folder.path().join("root");
    fs::create_dir_all(root.join("usr/lib"))?;
    std::os::unix::fs::symlink("usr/lib", root.join("lib"))?;
    output(Command::new("dpkg-deb").arg("-x").arg(package).arg(&root))?;
    assert_eq!(fs::read_link(root.join("lib"))?, Path::new("usr/lib"));
    for link in [
        "timers.target.wants/azaion-agent.timer",
        "sockets.target.wants/azaion-agent-token.socket",
        "basic.target.wants/azaion-setup.service",
    ] {
        assert!(root.join("lib/systemd/system").join(link).is_file(), "{link} is a dangling symlink");
    }
    for unit in ["azaion-agent.timer", "azaion-agent-token.socket"] {
        let is_enabled = || {
            let output = Command::new("systemctl").arg("--root").arg(&root).args(["is-enabled", unit]).output();
            output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
        };
        assert_eq!(is_enabled()?, "static", "{unit}");
        output(Command::new("systemctl").arg("--root").arg(&root).args(["mask", unit]))?;
        assert_eq!(is_enabled()?, "masked", "{unit}");
    }
    Ok(())
}

// Promise: the example agent.toml is valid as it is, and with each of its keys uncommented.
#[test]
fn the_example_policy_is_accepted() -> anyhow::Result<()> {
    let station = Station::new(azaion_tests::dev_api::Options::default())?;
    station.device(&[])?.ended_with(0)?;
    station.put_policy("")?;
    let example = fs::read_to_string(workspace().join("agent/debian/agent.toml"))?;
    let switched_on: Vec<&str> = example
        .lines()
        .map(|line| line.strip_prefix('#').filter(|key| !key.starts_with(' ')).unwrap_or(line))
        .collect();
    for text in [example.clone(), switched_on.join("\n")] {
        station.put("rootfs/etc/azaion/agent.toml", &text, 0o644)?;
        let checks = station.agent(&["status", "--json"])?.json_lines()?;
        let configuration = checks.iter().find(|check| check["id"] == "configuration").expect("such a check");
        assert_eq!(configuration["status"], "ok", "{configuration}");
    }
    for key in ["ca_file", "issuer", "audience", "signature", "deadline_s"] {
        assert!(switched_on.iter().any(|line| line.starts_with(&format!("{key} = "))), "{key} is not in the example");
    }
    Ok(())
}

// Promise: the manual pages have no formatting errors, and document every verb, option and exit code.
#[test]
fn the_manual_is_complete() -> anyhow::Result<()> {
    let man = |page: &str| {
        let mut command = Command::new("man");
        command.env("MANWIDTH", "200").env("LC_ALL", "C").args(["--warnings", "-l"]);
        let output = command.arg(workspace().join("docs/man").join(page)).output()?;
        assert!(output.stderr.is_empty(), "{page}: {}", String::from_utf8_lossy(&output.stderr));
        anyhow::Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let programs: [(&str, u8, &[&str]); 2] = [
        ("azaion-agent", 8, &["boot", "token", "status"]),
        ("azaion-provision", 1, &["device", "batch", "inspect", "clear", "check"]),
    ];
    for (program, section, verbs) in programs {
        let page = man(&format!("{program}.{section}"))?;
        for verb in verbs {
            let help = output(Command::new(native()?.join(program)).args([verb, "--help"]))?;
            let options = help.split_whitespace().filter(|word| word.starts_with("--") && *word != "--help");
            for word in options.chain([*verb]) {
                let word = word.trim_end_matches(|c: char| !c.is_alphanumeric());
                assert!(page.contains(word), "{program} {verb}: {word} is not in the manual");
            }
        }
        let help = output(Command::new(native()?.join(program)).arg("--help"))?;
        let (_, codes) = help.split_once("Exit codes:").expect("exit codes");
        for code in codes.lines().filter_map(|line| line.split_whitespace().next()) {
            let listed = page.lines().any(|line| line.split_whitespace().next() == Some(code));
            assert!(listed, "{program}: exit code {code} is not in the manual");
        }
    }
    let page = man("device.conf.5")?;
    for key in ["SERIAL", "EMAIL", "PASSWORD"].map(|key| format!("AZAION_DEVICE_{key}")) {
        assert!(page.contains(&key), "{key} is not in the manual");
    }
    Ok(())
}
