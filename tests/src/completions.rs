//! Generates the shell completions of `azaion-provision` from the definition of its command line.

use std::fs;
use std::path::PathBuf;

use clap_complete::Shell;

use crate::programs::workspace;

const PROGRAM: &str = "azaion-provision";
const SHELLS: [Shell; 3] = [Shell::Bash, Shell::Fish, Shell::Zsh];

/// Returns the paths in `docs/completions` with their expected content.
pub fn files() -> Vec<(PathBuf, Vec<u8>)> {
    let folder = workspace().join("docs/completions");
    let file = |shell: Shell| {
        let mut text = Vec::new();
        clap_complete::generate(shell, &mut azaion_provision::command(), PROGRAM, &mut text);
        let name = match shell {
            Shell::Zsh => format!("_{PROGRAM}"),
            other => format!("{PROGRAM}.{other}"),
        };
        (folder.join(name), if shell == Shell::Bash { mended(&text) } else { text })
    };
    SHELLS.map(file).into()
}

/// Works around `clap_complete` 4.6, which gives the verbs of a program with a hyphen in its name two names in bash, of
/// which one is never used.
fn mended(bash: &[u8]) -> Vec<u8> {
    String::from_utf8_lossy(bash).replace("azaion__subcmd__provision__", "azaion__provision__").into()
}

/// Writes the completion files.
///
/// # Errors
/// A file can't be written.
#[expect(clippy::disallowed_methods, reason = "no secrets are in them")]
pub fn write() -> anyhow::Result<()> {
    for (path, text) in files() {
        fs::write(path, text)?;
    }
    Ok(())
}
