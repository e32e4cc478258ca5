//! The package of the host tool, and its shell completions.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::ensure;
use azaion_tests::programs::{native, output, workspace};

use crate::container::run_in;
use crate::tree::{BOOKWORM, EPOCH, Tree};

/// Required files with modes; the pages of the manual are included unchanged.
const CONTENT: [&str; 7] = [
    "-rwxr-xr-x ./usr/bin/azaion-provision",
    "-rw-r--r-- ./usr/share/bash-completion/completions/azaion-provision",
    "-rw-r--r-- ./usr/share/doc/azaion-provision/copyright",
    "-rw-r--r-- ./usr/share/doc/azaion-provision/sbom.cdx.json",
    "-rw-r--r-- ./usr/share/fish/vendor_completions.d/azaion-provision.fish",
    "-rw-r--r-- ./usr/share/man/man1/azaion-provision.1.gz",
    "-rw-r--r-- ./usr/share/zsh/vendor-completions/_azaion-provision",
];

/// Packs this machine's build as `.ci/package` packs the static one.
pub(crate) fn package(folder: &Path) -> anyhow::Result<PathBuf> {
    // Without debug information, which takes long to compress.
    let binary = folder.join("azaion-provision");
    output(Command::new("strip").arg("-o").arg(&binary).arg(native()?.join("azaion-provision")))?;
    let mut build = Command::new(workspace().join("host/debian/build"));
    build.arg(binary).arg("amd64").arg(folder).env("SOURCE_DATE_EPOCH", EPOCH);
    Ok(output(&mut build)?.trim().into())
}

// Promise: the host's package has the program, its manual, all pages and schemas of docs/, and completions where the
// shells look for them; all of it is owned by root, none of it is below /lib, and no file contains a path of the build
// machine.
#[test]
#[cfg_attr(not(long), ignore = "long: ./tests/run --all")]
fn the_package_has_what_it_promises() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let package = package(folder.path())?;
    assert!(
        package.ends_with(concat!("azaion-provision_", env!("CARGO_PKG_VERSION"), "_amd64.deb")),
        "{}",
        package.display()
    );
    let listing = output(Command::new("dpkg-deb").arg("-c").arg(&package))?;
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let entries: Vec<Vec<String>> = listing.lines().map(words).collect();
    assert!(entries.iter().all(|entry| entry[1] == "root/root"), "{listing}");
    let files: Vec<String> = entries.iter().map(|entry| format!("{} {}", entry[0], entry[5])).collect();
    let pages = output(Command::new("sh").current_dir(workspace()).args(["-c", "cd docs && ls *.md schema/*"]))?;
    let pages = pages.lines().map(|name| format!("-rw-r--r-- ./usr/share/doc/azaion-provision/{name}"));
    for file in CONTENT.map(str::to_owned).into_iter().chain(pages) {
        assert!(files.contains(&file), "{file} is not in {listing}");
    }
    assert!(entries.iter().all(|entry| entry[5] == "./" || entry[5].starts_with("./usr/")), "{listing}");
    output(Command::new("dpkg-deb").arg("-x").arg(&package).arg(folder.path().join("root")))?;
    let names = Command::new("grep")
        .args(["-rl", "-e", &workspace().display().to_string()])
        .arg(folder.path().join("root/usr/share"))
        .output()?;
    assert_eq!(String::from_utf8_lossy(&names.stdout), "");
    Ok(())
}

// Promise: it can be installed, used, removed and purged on a minimal Debian, and leaves no files.
#[test]
#[cfg_attr(not(all(root, long)), ignore = "needs root and ./tests/run --all")]
fn from_installation_to_purge() -> anyhow::Result<()> {
    let (folder, tree) = (tempfile::tempdir()?, Tree::new(BOOKWORM)?);
    fs::copy(package(folder.path())?, tree.at("/station.deb"))?;
    let before = tree.listing("/usr")?;
    let run = |words: &[&str]| {
        let (ok, said) = run_in(&tree, words)?;
        ensure!(ok, "{words:?}: {said}");
        Ok(said)
    };
    run(&["dpkg", "-i", "/station.deb"])?;
    assert!(
        run(&["azaion-provision", "--version"])?.starts_with(concat!("azaion-provision ", env!("CARGO_PKG_VERSION")))
    );
    assert!(run(&["azaion-provision", "inspect", "/"]).unwrap_err().to_string().contains("own root"));
    run(&["dpkg", "--verify", "azaion-provision"])?;
    run(&["dpkg", "--purge", "azaion-provision"])?;
    assert_eq!(tree.listing("/usr")?, before);
    Ok(())
}

// Promise: a real bash completes verbs and options with it.
#[test]
fn bash_completes() -> anyhow::Result<()> {
    let file = workspace().join("docs/completions/azaion-provision.bash");
    for (words, expected) in [
        (&["azaion-provision", "dev"][..], "device"),
        (&["azaion-provision", "device", "--root"], "--rootfs"),
        (&["azaion-provision", "clear", "--if"], "--if-serial"),
        (&["azaion-provision", "device", "--on-existing", ""], "refuse"),
    ] {
        // As bash does when Tab is pressed.
        let script = "source \"$1\"; shift; COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); \
                      complete=$(complete -p azaion-provision | sed 's/.*-F \\([^ ]*\\).*/\\1/'); \
                      $complete azaion-provision \"${@: -1}\" \"${@: -2:1}\"; printf '%s\\n' \"${COMPREPLY[@]}\"";
        let said = output(Command::new("bash").args(["-c", script, "bash"]).arg(&file).args(words))?;
        assert!(said.lines().any(|word| word == expected), "{words:?}: {said}");
    }
    Ok(())
}
