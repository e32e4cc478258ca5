//! Generates the shell completions of `azaion-provision` from the definition of its command line.

use std::path::PathBuf;

use clap_complete::Shell;

use crate::programs::workspace;

const PROGRAM: &str = "azaion-provision";
const SHELLS: [Shell; 3] = [Shell::Bash, Shell::Fish, Shell::Zsh];

/// Returns the paths in `docs/completions` with their expected content.
pub fn files() -> Vec<(PathBuf, String)> {
    let folder = workspace().join("docs/completions");
    let file = |shell: Shell| {
        let mut text = Vec::new();
        clap_complete::generate(shell, &mut azaion_provision::command(), PROGRAM, &mut text);
        let name = match shell {
            Shell::Zsh => format!("_{PROGRAM}"),
            other => format!("{PROGRAM}.{other}"),
        };
        let text = String::from_utf8_lossy(&text);
        (folder.join(name), if shell == Shell::Bash { mended(&text) } else { text.into_owned() })
    };
    SHELLS.map(file).into()
}

/// Works around `clap_complete` 4.6, which gives the verbs of a program with a hyphen in its name two names in bash, of
/// which one is never used.
fn mended(bash: &str) -> String {
    bash.replace("azaion__subcmd__provision__", "azaion__provision__")
}
