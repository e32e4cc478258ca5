//! The benchmark: compares both programs with the procedures without them, on the same server, alternating.
//!
//! Only ratios count: absolute figures depend on the machine.

mod batch;
mod calls;
mod compressed;
mod images;
mod measure;
mod programs;

use std::io::Write;

use azaion_tests::dev_api::Hashing;
use clap::{Parser, Subcommand};

use batch::Batch;
use calls::Calls;
use compressed::Compressed;
use images::Images;
use measure::{Bound, Row};
use programs::Bench;

/// With real hashes the server's Argon2id takes most of the time, so fewer rounds are enough.
const ROUNDS_PER_REAL_ROUND: usize = 5;

/// Measures both programs against the procedures without them
#[derive(Parser)]
#[command(version)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag")]
struct Arguments {
    /// Exit with 1 if a bound is missed
    #[arg(long)]
    check: bool,
    /// Number of rounds of each measurement
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Measure only the rows of batches
    #[arg(long)]
    batch: bool,
    /// Measure only the rows of compressed images
    #[arg(long)]
    compressed: bool,
    /// Measure only the rows of both programs beside scripts
    #[arg(long, conflicts_with_all = ["batch", "compressed"])]
    programs: bool,
    #[command(subcommand)]
    part: Option<Part>,
}

/// Subcommands that the benchmark starts as separate processes.
#[derive(Subcommand)]
enum Part {
    #[command(hide = true)]
    Calls(Calls),
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    if let Some(Part::Calls(calls)) = &arguments.part {
        return calls.run();
    }
    let rounds = usize::from(arguments.rounds);
    let bench = Bench::new()?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{rounds} rounds in turns, medians\n\n{}", Row::HEADINGS)?;
    let mut rows = Vec::new();
    if arguments.programs {
        rows.extend(bench.rows(Hashing::Cheap, rounds)?);
        rows.iter().try_for_each(|row| writeln!(out, "{row}"))?;
        check(&arguments, &rows);
        return Ok(());
    }
    if !arguments.compressed {
        rows.extend(Batch::new()?.rows()?);
    }
    if !arguments.batch && !arguments.compressed {
        rows.extend(bench.rows(Hashing::Cheap, rounds)?);
        rows.extend(Images::new(rounds)?.rows()?);
    }
    if !arguments.batch {
        rows.extend(Compressed::new(rounds)?.rows()?);
    }
    for row in &rows {
        writeln!(out, "{row}")?;
    }
    if arguments.batch || arguments.compressed {
        check(&arguments, &rows);
        return Ok(());
    }
    let real_rounds = rounds.div_ceil(ROUNDS_PER_REAL_ROUND);
    writeln!(out, "\nfor information, with the password hashes of production, {real_rounds} rounds:")?;
    for row in bench.rows(Hashing::Real, real_rounds)? {
        writeln!(out, "{}", Row { bound: Bound::None, ..row })?;
    }
    check(&arguments, &rows);
    Ok(())
}

fn check(arguments: &Arguments, rows: &[Row]) {
    if arguments.check && rows.iter().any(Row::failed) {
        std::process::exit(1);
    }
}
