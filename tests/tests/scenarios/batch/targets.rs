//! Targets of every kind, existing ones and copies of a template, checked with independent programs.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;

use anyhow::ensure;
use azaion_tests::dev_api::Options;
use nix::unistd::geteuid;

use super::kind::{KINDS, Kind, sum_is_right};
use super::{Line, said, serials, text};

const RANGE: &str = "AZJN-0001..AZJN-0003";
fn batch(line: &Line, options: &[&str]) -> anyhow::Result<()> {
    batch_of("system.img", line, options)
}

fn batch_of(name: &str, line: &Line, options: &[&str]) -> anyhow::Result<()> {
    let template = text(&line.target("{serial}").join(name));
    let fixed = [RANGE, "--owner", "current", "--rootfs", &template];
    line.run(&[&fixed, options].concat())?.ended_with(0).map(drop)
}

fn each_is_let_in(line: &Line, kind_of: impl Fn(usize) -> Kind) -> anyhow::Result<()> {
    for (number, serial) in serials(1, 3).iter().enumerate() {
        let kind = kind_of(number);
        let conf = kind.conf(line, &line.target(serial).join(kind.name()))?;
        line.lets_in(&conf, serial)?;
    }
    Ok(())
}

// Promise: one batch may have targets of all kinds, detected by content.
#[test]
fn kinds_may_be_mixed() -> anyhow::Result<()> {
    let kinds = [Kind::TarZst, Kind::Raw, Kind::Tar];
    let line = Line::new(Options::default())?;
    for (serial, kind) in serials(1, 3).iter().zip(kinds) {
        kind.make(&line, &line.target(serial).join("system.img"))?;
    }
    batch(&line, &[])?;
    each_is_let_in(&line, |number| kinds[number])
}

// Promise: a missing target is copied from the template, of any kind; only the owner can read the copy of an image, and
// the copy of a tar has a correct checksum. The template then holds no device, and a second run copies nothing.
#[test]
fn copies_of_every_kind() -> anyhow::Result<()> {
    for kind in KINDS {
        let line = Line::new(Options::default())?;
        let name = kind.name();
        let base = line.station.path("base").join(name.replace("system", "whatever"));
        kind.make(&line, &base)?;
        batch_of(name, &line, &["--base", &text(&base)])?;
        each_is_let_in(&line, |_| kind).map_err(|error| error.context(format!("{kind:?}")))?;
        for serial in serials(1, 3) {
            let folder = line.target(&serial);
            let mut names: Vec<_> =
                fs::read_dir(&folder)?.map(|e| Ok(e?.file_name())).collect::<anyhow::Result<_>>()?;
            names.sort();
            let has_sum = matches!(kind, Kind::Tar | Kind::TarZst);
            let expected: &[&str] = if has_sum { &["system.img", "system.img.sha1sum"] } else { &[name] };
            let known = names.iter().all(|name| expected.iter().any(|known| name == known) || is_kept_state(name));
            ensure!(known && names.len() >= expected.len(), "{kind:?}: {names:?}");
            let mode = fs::metadata(folder.join(name))?.mode() & 0o7777;
            ensure!(kind == Kind::Directory || mode == 0o600, "{kind:?}: {mode:o}");
        }
        let inspected = line.station.provision_offline(&["inspect", "--json", &text(&base)])?.ended_with(0)?;
        assert_eq!(inspected.json_lines()?[0]["empty"], true, "{kind:?}");
        let before = fs::metadata(line.target("AZJN-0002").join(name))?;
        batch_of(name, &line, &["--base", &text(&base)])?;
        let after = fs::metadata(line.target("AZJN-0002").join(name))?;
        assert_eq!((before.ino(), before.mtime_nsec()), (after.ino(), after.mtime_nsec()), "{kind:?}");
        assert_eq!(line.created(), 3);
    }
    Ok(())
}

// Promise: a template image of any kind that has a checksum file has the correct one right after the batch has created
// its slot, and so has each copy of it.
#[test]
fn checksums_of_copies() -> anyhow::Result<()> {
    for kind in [Kind::Raw, Kind::Sparse, Kind::Tar, Kind::TarZst, Kind::Ext4Zst] {
        let line = Line::new(Options::default())?;
        let base = line.station.path("base").join(kind.name());
        kind.make(&line, &base)?;
        // The one of a plain tar contains the file's name.
        if !matches!(kind, Kind::Tar) {
            Kind::put_sum(&base)?;
        }
        for _ in 0..2 {
            batch_of(kind.name(), &line, &["--base", &text(&base)])?;
            sum_is_right(&base).map_err(|error| error.context(format!("{kind:?}, the template")))?;
            for serial in serials(1, 3) {
                sum_is_right(&line.target(&serial).join(kind.name()))?;
            }
            each_is_let_in(&line, |_| kind).map_err(|error| error.context(format!("{kind:?}")))?;
        }
        // The checksum state beside the template is also that of the template without a device.
        line.station.provision(&["device", "AZJN-0099", "--rootfs", &text(&base)])?.ended_with(0)?;
        sum_is_right(&base)?;
    }
    Ok(())
}

/// Returns whether it is the state that the tool stores beside a tar, so that it need not read all of it again.
fn is_kept_state(name: &std::ffi::OsStr) -> bool {
    let name = name.to_string_lossy();
    name.starts_with("system.img.") || name.starts_with(".system.img.") && !name.ends_with(".new")
}

// Promise: the copy of a directory equals the template: owners, modes, links of both kinds, times.
#[test]
fn a_copy_is_the_same() -> anyhow::Result<()> {
    let line = Line::new(Options::default())?;
    line.station.put("rootfs/usr/bin/sudo", "not really", 0o755)?;
    line.station.put("rootfs/etc/shadow", "root:*::0:::::\n", 0o640)?;
    let inside = |name: &str| line.station.inside(name);
    if geteuid().is_root() {
        chown(inside("etc/shadow"), Some(0), Some(42))?;
        chown(inside("usr/bin/sudo"), Some(1000), Some(1001))?;
    }
    fs::set_permissions(inside("usr/bin/sudo"), fs::Permissions::from_mode(0o4755))?;
    fs::set_permissions(inside("boot"), fs::Permissions::from_mode(0o1711))?;
    symlink("/etc/shadow", inside("usr/absolute"))?;
    symlink("nowhere", inside("usr/dangling"))?;
    fs::hard_link(inside("etc/shadow"), inside("etc/shadow-"))?;
    line.batch(RANGE, &[])?.ended_with(0)?;
    let script = "cd \"$1\" && find . -path ./etc/azaion -prune -o -printf '%p %y %m %U:%G %n %T@ %l\\n' | grep -v '^./etc ' | sort";
    let list = |root: &Path| said("sh", &["-c", script, "sh", &text(root)]);
    let base = list(&line.station.rootfs())?;
    assert!(base.contains("./usr/bin/sudo f 4755") && base.contains("./usr/dangling l"), "{base}");
    for serial in serials(1, 3) {
        // A directory has one link less for each missing subdirectory.
        assert_eq!(list(&line.target(&serial))?, base);
    }
    let links = ["etc/shadow", "etc/shadow-"].map(|name| fs::metadata(line.target("AZJN-0001").join(name)));
    let [first, second] = links;
    assert_eq!(first?.ino(), second?.ino());
    Ok(())
}

// Promise: a template with a device's file in it is refused with 73 and the device's name: all its copies would be that
// device.
#[test]
fn a_base_with_somebody_in_it() -> anyhow::Result<()> {
    for kind in KINDS {
        let line = Line::new(Options::default())?;
        let base = text(&line.station.path(kind.name()));
        kind.make(&line, Path::new(&base))?;
        let device = ["device", "AZJN-0099", "--rootfs", &base, "--owner", "current"];
        line.station.provision(&device)?.ended_with(0)?;
        line.station.api.forget_requests();
        let template = text(&line.target("{serial}").join(kind.name()));
        let run = line.run(&[RANGE, "--owner", "current", "--rootfs", &template, "--base", &base])?.ended_with(73)?;
        assert!(run.stderr.contains("AZJN-0099") && run.stderr.contains("clear it"), "{}", run.stderr);
        assert_eq!((line.station.api.requests().len(), fs::read_dir(line.units())?.count()), (0, 0), "{kind:?}");
        line.station.provision_offline(&["clear", &base])?.ended_with(0)?;
        line.run(&[RANGE, "--owner", "current", "--rootfs", &template, "--base", &base])?.ended_with(0)?;
    }
    Ok(())
}
