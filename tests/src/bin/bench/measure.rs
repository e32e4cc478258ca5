//! Measures two things alternately and compares them.

use std::fmt;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, ensure};

/// Warm-up rounds, which fill the caches and are not counted.
const WARM_UP: usize = 3;

/// The acceptance bound of a row.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bound {
    /// The highest ratio of ours to theirs.
    Ratio(f64),
    /// The most that ours may exceed theirs, in the unit of both.
    More(f64),
    /// The target ratio, and the most that ours may exceed theirs until the target is reached.
    Goal(f64, f64),
    /// No bound; for information only.
    None,
}

/// One measurement compared with another.
pub(crate) struct Row {
    pub(crate) what: &'static str,
    pub(crate) ours: f64,
    pub(crate) theirs: f64,
    pub(crate) unit: &'static str,
    pub(crate) bound: Bound,
}

impl Row {
    /// A row without a value.
    pub(crate) const EMPTY: Self = Self { what: "", ours: 0.0, theirs: 0.0, unit: "ms", bound: Bound::None };
    pub(crate) const HEADINGS: &str =
        "                                                      ours       theirs   ratio  bound";

    fn held(&self) -> bool {
        match self.bound {
            Bound::Ratio(most) => self.ours / self.theirs <= most,
            Bound::More(most) | Bound::Goal(_, most) => self.ours - self.theirs <= most,
            Bound::None => true,
        }
    }

    /// Returns whether it misses its bound by so much that the noise of a shared machine does not explain it.
    pub(crate) fn failed(&self) -> bool {
        match self.bound {
            Bound::Ratio(most) => self.ours / self.theirs > 1.5 * most,
            Bound::More(most) | Bound::Goal(_, most) => self.ours - self.theirs > most + 0.5 * self.theirs,
            Bound::None => false,
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, ours, theirs, unit, .. } = self;
        write!(f, "{what:<45} {ours:>8.2} {unit:<3} {theirs:>8.2} {unit:<3} {:>6.2}", ours / theirs)?;
        match self.bound {
            Bound::Ratio(most) => write!(f, "  {most:>5.2}")?,
            Bound::More(most) => write!(f, "  {:+.2} of {most:+.2} {unit}", ours - theirs)?,
            Bound::Goal(goal, most) => {
                let met = if ours / theirs <= goal { "met" } else { "missed" };
                write!(f, "  goal {goal:.2} {met}; {:+.2} of {most:+.2} {unit}", ours - theirs)?;
            }
            Bound::None => return Ok(()),
        }
        write!(f, "  {}", if self.held() { "held" } else { "MISSED" })
    }
}

/// Returns the medians of two measurements, taken alternately, so that other load on the machine affects both alike.
pub(crate) fn in_turns(
    rounds: usize,
    mut ours: impl FnMut(usize) -> anyhow::Result<f64>,
    mut theirs: impl FnMut(usize) -> anyhow::Result<f64>,
) -> anyhow::Result<(f64, f64)> {
    let mut taken = (Vec::new(), Vec::new());
    for round in 0..WARM_UP + rounds {
        let pair = (ours(round)?, theirs(round)?);
        if round >= WARM_UP {
            taken.0.push(pair.0);
            taken.1.push(pair.1);
        }
    }
    Ok((median(taken.0)?, median(taken.1)?))
}

/// The same for slow measurements: few rounds and one warm-up round; both closures share one value.
pub(crate) fn in_few_turns<T>(
    with: &mut T,
    rounds: usize,
    mut ours: impl FnMut(&mut T) -> anyhow::Result<f64>,
    mut theirs: impl FnMut(&mut T) -> anyhow::Result<f64>,
) -> anyhow::Result<(f64, f64)> {
    let mut taken = (Vec::new(), Vec::new());
    for round in 0..=rounds {
        let pair = (ours(with)?, theirs(with)?);
        if round > 0 {
            taken.0.push(pair.0);
            taken.1.push(pair.1);
        }
    }
    Ok((median(taken.0)?, median(taken.1)?))
}

/// Returns the median, the upper one of two.
pub(crate) fn median(mut values: Vec<f64>) -> anyhow::Result<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().context("no rounds")
}

/// Returns the milliseconds from the start of a program to its end; the program must succeed.
pub(crate) fn time(mut command: Command) -> anyhow::Result<f64> {
    let start = Instant::now();
    let output = command.output().with_context(|| format!("starting {command:?}"))?;
    let taken = start.elapsed();
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(taken.as_secs_f64() * 1000.0)
}

/// Returns the peak memory (resident set, MiB) of a program. GNU time starts it, because the kernel counts the memory
/// of the parent process at the start as the program's own, and time uses less than any program measured.
pub(crate) fn peak(command: &Command) -> anyhow::Result<f64> {
    let mut timed = azaion_tests::station::command(Path::new("time"), &["-q", "-f", "%M"]);
    timed.arg(command.get_program()).args(command.get_args());
    let output = timed.output().context("starting time; is the package `time` installed?")?;
    let words = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{timed:?}: {words}");
    let kibibytes: f64 = words.lines().last().unwrap_or_default().parse().context("reading the output of time")?;
    Ok(kibibytes / 1024.0)
}
