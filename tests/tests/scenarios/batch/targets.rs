//! Targets of every kind, those that are there and those that are copied from a base; looked at with the programs of others.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;

use anyhow::ensure;
use azaion_tests::dev_api::Options;
use nix::unistd::geteuid;

use super::kind::{KINDS, Kind};
use super::{Line, said, serials, text};

const RANGE: &str = "AZJN-0001..AZJN-0003";
fn batch(line: &Line, options: &[&str]) -> anyhow::Result<()> {
    let template = text(&line.target("{serial}").join("system.img"));
    let fixed = [RANGE, "--owner", "current", "--rootfs", &template];
    line.run(&[&fixed, options].concat())?.ended_with(0).map(drop)
}

fn each_is_let_in(line: &Line, kind_of: impl Fn(usize) -> Kind) -> anyhow::Result<()> {
    for (number, serial) in serials(1, 3).iter().enumerate() {
        let conf = kind_of(number).conf(line, &line.target(serial).join("system.img"))?;
        line.lets_in(&conf, serial)?;
    }
    Ok(())
}

// Promise: one batch may have targets of all kinds, told by what is in them.
#[test]
fn kinds_may_be_mixed() -> anyhow::Result<()> {
    let kinds = [Kind::Directory, Kind::Raw, Kind::Tar];
    let line = Line::new(Options::default())?;
    for (serial, kind) in serials(1, 3).iter().zip(kinds) {
        kind.make(&line, &line.target(serial).join("system.img"))?;
    }
    batch(&line, &[])?;
    each_is_let_in(&line, |number| kinds[number])
}

// Promise: a target that is missing is copied from the base, of whatever kind; a copy of an image is its owner's alone,
// one of a tar has a sum that is right. The base has no device in it then, and a run again copies nothing.
#[test]
fn copies_of_every_kind() -> anyhow::Result<()> {
    for kind in KINDS {
        let line = Line::new(Options::default())?;
        let base = line.station.path("base/whatever.img");
        kind.make(&line, &base)?;
        batch(&line, &["--base", &text(&base)])?;
        each_is_let_in(&line, |_| kind).map_err(|error| error.context(format!("{kind:?}")))?;
        for serial in serials(1, 3) {
            let folder = line.target(&serial);
            let mut names: Vec<_> =
                fs::read_dir(&folder)?.map(|e| Ok(e?.file_name())).collect::<anyhow::Result<_>>()?;
            names.sort();
            let expected: &[&str] =
                if kind == Kind::Tar { &["system.img", "system.img.sha1sum"] } else { &["system.img"] };
            let known = names.iter().all(|name| expected.iter().any(|known| name == known) || is_kept_state(name));
            ensure!(known && names.len() >= expected.len(), "{kind:?}: {names:?}");
            let mode = fs::metadata(folder.join("system.img"))?.mode() & 0o7777;
            ensure!(kind == Kind::Directory || mode == 0o600, "{kind:?}: {mode:o}");
        }
        let inspected = line.station.provision_offline(&["inspect", "--json", &text(&base)])?.ended_with(0)?;
        assert_eq!(inspected.json_lines()?[0]["empty"], true, "{kind:?}");
        let before = fs::metadata(line.target("AZJN-0002").join("system.img"))?;
        batch(&line, &["--base", &text(&base)])?;
        let after = fs::metadata(line.target("AZJN-0002").join("system.img"))?;
        assert_eq!((before.ino(), before.mtime_nsec()), (after.ino(), after.mtime_nsec()), "{kind:?}");
        assert_eq!(line.created(), 3);
    }
    Ok(())
}

/// What the tool keeps beside a tar, so that it need not be read again.
fn is_kept_state(name: &std::ffi::OsStr) -> bool {
    let name = name.to_string_lossy();
    name.starts_with("system.img.") || name.starts_with(".system.img.") && !name.ends_with(".new")
}

// Promise: in the copy of a directory all is as in the base: owners, modes, links of both kinds, times.
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
        // A folder has one link less for each folder that is not in it.
        assert_eq!(list(&line.target(&serial))?, base);
    }
    let links = ["etc/shadow", "etc/shadow-"].map(|name| fs::metadata(line.target("AZJN-0001").join(name)));
    let [first, second] = links;
    assert_eq!(first?.ino(), second?.ino());
    Ok(())
}

// Promise: a base with somebody's file in it is refused with 73 and whose it is: all its copies would be that device.
#[test]
fn a_base_with_somebody_in_it() -> anyhow::Result<()> {
    for kind in KINDS {
        let line = Line::new(Options::default())?;
        let base = text(&line.station.path("base.img"));
        kind.make(&line, Path::new(&base))?;
        let device = ["device", "AZJN-0099", "--rootfs", &base, "--owner", "current"];
        line.station.provision(&device)?.ended_with(0)?;
        line.station.api.forget_requests();
        let template = text(&line.target("{serial}"));
        let run = line.run(&[RANGE, "--owner", "current", "--rootfs", &template, "--base", &base])?.ended_with(73)?;
        assert!(run.stderr.contains("AZJN-0099") && run.stderr.contains("clear it"), "{}", run.stderr);
        assert_eq!((line.station.api.requests().len(), fs::read_dir(line.units())?.count()), (0, 0), "{kind:?}");
        line.station.provision_offline(&["clear", &base])?.ended_with(0)?;
        line.run(&[RANGE, "--owner", "current", "--rootfs", &template, "--base", &base])?.ended_with(0)?;
    }
    Ok(())
}
