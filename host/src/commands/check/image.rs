//! Warnings about images that can be provisioned although the flasher may write another file, or the device may not boot.

use std::env;
use std::path::{Path, PathBuf};

use azaion_agent::common::check::Check;
use nix::unistd::{AccessFlags, access};

use crate::commands::check::flash_cfg;
use crate::error::Result;
use crate::target::Target;

pub(super) const FLASH_CONFIG: &str = "flash-config";
pub(super) const CONTENT: &str = "image";
pub(super) const ZSTD: &str = "zstd";

/// Directories of programs in addition to `PATH`, which sudo and cron shorten.
const USUAL_DIRECTORIES: [&str; 3] = ["/usr/local/bin", "/usr/bin", "/bin"];

/// Compares an image with the `flash.cfg` beside it; returns nothing for a directory.
#[expect(clippy::disallowed_methods, reason = "the result is only used in warnings")]
pub(super) fn flash_config(path: &Path) -> Option<Check> {
    let warning = if path.is_file() { flash_cfg::warning(path) } else { None };
    warning.map(|message| Check::warning(FLASH_CONFIG, message))
}

/// Returns warnings about content that may keep the device from booting.
pub(super) fn content(target: &dyn Target) -> Result<Vec<Check>> {
    let warnings = target.warnings()?.into_iter();
    Ok(warnings.map(|message| Check::warning(CONTENT, message)).collect())
}

/// Warns if this host does not have the program that NVIDIA's flash scripts need for the target.
pub(super) fn zstd(target: &dyn Target) -> Option<Check> {
    let message = missing_zstd(target.path(), &target.kind().to_string(), &program_directories());
    message.map(|message| Check::warning(ZSTD, message))
}

fn missing_zstd(path: &Path, kind: &str, directories: &[PathBuf]) -> Option<String> {
    if !kind.contains("zst") || is_installed("zstd", directories) {
        return None;
    }
    Some(format!(
        "the program zstd is not installed, but NVIDIA's flash scripts need it for {} ({kind}); run: apt-get install zstd",
        path.display()
    ))
}

/// Returns the directories of `PATH` and the usual ones.
fn program_directories() -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).chain(USUAL_DIRECTORIES.map(PathBuf::from)).collect()
}

/// Returns whether a directory has a program of this name. Skips relative directories: the flash scripts run elsewhere.
#[expect(clippy::disallowed_methods, reason = "the result is only used in warnings")]
fn is_installed(program: &str, directories: &[PathBuf]) -> bool {
    let is_program = |file: PathBuf| file.is_file() && access(&file, AccessFlags::X_OK).is_ok();
    directories.iter().any(|directory| directory.is_absolute() && is_program(directory.join(program)))
}

#[cfg(test)]
mod tests {
    use std::fs::{File, create_dir, set_permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    // Promise: a program is found only where it can be executed; only zstd images need zstd.
    #[test]
    fn programs_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let directory = |name: &str| dir.path().join(name);
        for name in ["empty", "other", "data", "directory", "program"] {
            create_dir(directory(name)).unwrap();
        }
        create_dir(directory("directory/zstd")).unwrap();
        for (file, mode) in [("other/zstdcat", 0o755), ("data/zstd", 0o644), ("program/zstd", 0o755)] {
            File::create(directory(file)).unwrap();
            set_permissions(directory(file), PermissionsExt::from_mode(mode)).unwrap();
        }
        let without = ["missing", "empty", "other", "data", "directory"].map(directory);
        assert!(!is_installed("zstd", &without));
        let with = [&without[..], &[directory("program")]].concat();
        assert!(is_installed("zstd", &with));
        assert!(!is_installed("zstd", &[PathBuf::new(), PathBuf::from("bin")]));
        let image = Path::new("system.img");
        for (kind, is_needed) in [("tar.zst", true), ("ext4.zst", true), ("tar", false), ("ext4", false)] {
            assert_eq!(missing_zstd(image, kind, &without).is_some(), is_needed, "{kind}");
            assert_eq!(missing_zstd(image, kind, &with), None, "{kind}");
        }
        let message = missing_zstd(image, "tar.zst", &without).unwrap();
        assert!(message.contains("system.img (tar.zst)") && message.contains("apt-get install zstd"), "{message}");
    }

    // Promise: the usual directories are searched even if PATH does not have them.
    #[test]
    fn usual_directories_are_searched() {
        let directories = program_directories();
        assert!(USUAL_DIRECTORIES.iter().all(|usual| directories.contains(&PathBuf::from(usual))), "{directories:?}");
    }
}
