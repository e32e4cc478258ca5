//! Which failures of the tables (`failures.tsv`) the programs have reported in the tests: one empty file each below
//! `provoked` of the target directory. `./tests/run --all` lists at its end those that no test provoked.

use std::fs::{self, File};
use std::path::PathBuf;

use azaion_agent::common::failures::Failures;

use crate::programs::{Run, target_dir};

/// Returns the tables of both programs, first the host's.
pub fn both() -> [Failures; 2] {
    [azaion_provision::FAILURES, azaion_agent::cli::FAILURES]
}

fn file(program: &str, id: &str) -> PathBuf {
    target_dir().join("provoked").join(program).join(id)
}

/// Records the failures in the output of a run of one of our programs.
///
/// # Errors
/// The I/O error.
pub fn note(run: &Run) -> anyhow::Result<()> {
    let program = |failures: &Failures| run.command_line.contains(failures.program);
    let Some(failures) = both().into_iter().find(program) else { return Ok(()) };
    for line in run.stderr.lines().chain(run.stdout.lines()) {
        if let Some(known) = failures.of_line(line) {
            let file = file(failures.program, known.id);
            if !file.exists() {
                fs::create_dir_all(file.parent().unwrap_or(&file))?;
                File::create(file)?;
            }
        }
    }
    Ok(())
}

/// Returns the failures that no run has reported, each with its program.
pub fn missing() -> Vec<String> {
    let all = both().into_iter().flat_map(|failures| failures.all().map(move |failure| (failures.program, failure.id)));
    let missing = all.filter(|(program, id)| !file(program, id).exists());
    missing.map(|(program, id)| format!("{program}: {id}")).collect()
}
