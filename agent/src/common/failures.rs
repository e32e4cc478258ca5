//! The known failures of a program, and what `explain` prints about them.
//!
//! Each program has a table of them (`failures.tsv`). The tables of `docs/runbook.md` and the man pages are generated
//! from it, and a test provokes each failure.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use super::exit::Exit;

/// The table of a program: tab-separated, with one header line, and lines that start with `#` as comments.
#[derive(Clone, Copy, Debug)]
pub struct Failures {
    /// The program that explains them.
    pub program: &'static str,
    /// The content of the table.
    pub table: &'static str,
}

/// A row of the table. Its texts are Markdown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The name to give to `explain`.
    pub id: &'static str,
    /// The exit codes, separated by commas.
    pub codes: &'static str,
    /// The messages, each between backquotes; `…` stands for any text.
    pub messages: &'static str,
    /// Why it fails.
    pub cause: &'static str,
    /// What to do.
    pub remedy: &'static str,
}

impl Failures {
    /// Returns all rows, ordered by exit code.
    pub fn all(self) -> impl Iterator<Item = Failure> {
        let lines = self.table.lines().filter(|line| !line.starts_with('#')).skip(1);
        lines.filter_map(|line| {
            let mut cells = line.split('\t');
            let mut next = || cells.next();
            Some(Failure { id: next()?, codes: next()?, messages: next()?, cause: next()?, remedy: next()? })
        })
    }

    /// Returns the failure that a printed line is about: the one with the longest message in it.
    pub fn of_line(self, line: &str) -> Option<Failure> {
        let found = self.all().filter_map(|failure| Some((failure.longest_match(line)?, failure)));
        found.max_by_key(|(length, _)| *length).map(|(_, failure)| failure)
    }

    /// Returns the explanation of an id, an exit code, or a printed message; without any, the list of all ids.
    ///
    /// # Errors
    /// Nothing is known under this name: what to do instead.
    pub fn explain(self, subject: Option<&str>) -> Result<String, String> {
        let Some(subject) = subject else { return Ok(self.list()) };
        let mut found: Vec<Failure> = self.all().filter(|failure| failure.is_named(subject)).collect();
        if found.is_empty() {
            found.extend(self.of_line(subject));
        }
        if found.is_empty() {
            return Err(format!(
                "no failure has this id, exit code or message; `{} explain` lists all ids",
                self.program
            ));
        }
        Ok(found.iter().map(Failure::text).collect::<Vec<_>>().join("\n"))
    }

    fn list(self) -> String {
        let mut text = String::new();
        for failure in self.all() {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{:22} {:9} {}", failure.id, failure.codes, plain(failure.cause));
        }
        text
    }
}

impl Failure {
    /// Returns the parts of each message between the ellipses.
    pub fn messages(&self) -> impl Iterator<Item = Vec<&'static str>> + use<> {
        let quoted = self.messages.split('`').skip(1).step_by(2);
        quoted.map(|message| message.split('…').map(str::trim).filter(|part| !part.is_empty()).collect())
    }

    fn is_named(&self, name: &str) -> bool {
        self.id == name || self.codes.split(',').any(|code| code == name)
    }

    /// Returns the length of the longest of its messages that is in the line.
    fn longest_match(&self, line: &str) -> Option<usize> {
        let is_in = |parts: &Vec<&str>| {
            parts.iter().try_fold(line, |rest, part| rest.split_once(part).map(|(_, rest)| rest)).is_some()
        };
        self.messages().filter(is_in).map(|parts| parts.iter().map(|part| part.len()).sum()).max()
    }

    fn text(&self) -> String {
        format!(
            "{} (exit code {})\n  message  {}\n  cause    {}\n  remedy   {}\n",
            self.id,
            self.codes.replace(',', ", "),
            self.messages.replace('`', ""),
            plain(self.cause),
            plain(self.remedy)
        )
    }
}

/// Returns Markdown as plain text, with the target of a link after its text.
fn plain(markdown: &str) -> String {
    let text = markdown.replace("](#", " (runbook.md#").replace("](", " (");
    text.replace(['`', '['], "")
}

/// Prints what `explain` found; returns the exit code.
pub fn print(explanation: Result<String, String>) -> Exit {
    match explanation {
        Ok(text) => {
            // As with --help, a closed pipe is not an error: its reader has enough.
            let _ = io::stdout().lock().write_all(text.as_bytes());
            Exit::Done
        }
        Err(message) => {
            log::error!("{message}");
            Exit::Usage
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAILURES: Failures = Failures {
        program: "program",
        table: "# a comment\nid\tcodes\tmessages\tcause\tremedy\n\
                full\t74\t`No space left`, `takes … MiB`\tthe disk is full\tfree space\n\
                in-use\t66,75\t`takes 3 MiB of another run`\tan `image`\tsee [NVMe](line.md#nvme)\n",
    };

    fn explained(subject: &str) -> Result<String, String> {
        FAILURES.explain(Some(subject))
    }

    // Promise: a failure is found by its id, its exit code and a printed message; the longest message counts.
    #[test]
    fn is_found_by_id_code_and_message() {
        let full = "full (exit code 74)\n  message  No space left, takes … MiB\n  cause    the disk is full\n  remedy   free space\n";
        for subject in ["full", "74", "error: writing x: No space left on device", "it takes 12.5 MiB"] {
            assert_eq!(explained(subject).as_deref(), Ok(full), "{subject}");
        }
        for subject in ["66", "75", "it takes 3 MiB of another run"] {
            assert!(explained(subject).unwrap().starts_with("in-use (exit code 66, 75)\n"), "{subject}");
        }
        assert_eq!(FAILURES.of_line("MiB takes"), None);
    }

    // Promise: links and code are printed as plain text; an unknown subject is an error that says what to do.
    #[test]
    fn is_plain_text() {
        assert!(explained("in-use").unwrap().ends_with("  cause    an image\n  remedy   see NVMe (line.md#nvme)\n"));
        assert!(explained("other").unwrap_err().contains("`program explain` lists"));
        assert_eq!(FAILURES.explain(None).unwrap().lines().count(), 2);
    }
}
