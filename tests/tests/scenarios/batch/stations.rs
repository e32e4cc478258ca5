//! Several flashing hosts with one API, each in its own network, which share only the API.

use std::collections::BTreeMap;
use std::fs;
use std::thread;

use anyhow::ensure;
use azaion_tests::dev_api::Options;
use azaion_tests::netns::{Namespace, SERVER};
use azaion_tests::programs::{Run, native};
use azaion_tests::station::conf_value;

use super::{CONF, Line, email, outcomes, range, serials, text};

/// The devices of each host: every one but the first and the last is in the lists of two hosts or more.
const LISTS: [(usize, usize); 4] = [(1, 20), (11, 30), (16, 40), (8, 34)];
const UNITS: usize = 40;

/// The networks of the API and of each host: links that meet at the API.
struct Plant {
    server: Namespace,
    stations: Vec<Namespace>,
}

impl Plant {
    fn new() -> anyhow::Result<Self> {
        let server = Namespace::new()?;
        server.run(&format!("ip address add {SERVER}/32 dev lo"))?;
        let stations = (1..=LISTS.len()).map(|number| Self::station(&server, number)).collect::<Result<_, _>>()?;
        Ok(Self { server, stations })
    }

    fn station(server: &Namespace, number: usize) -> anyhow::Result<Namespace> {
        let (station, address) = (Namespace::new()?, format!("10.0.2.{}", 10 + number));
        station.inside(|| {
            // The namespace of this thread, by a path that other threads can open.
            let thread = fs::read_link("/proc/thread-self")?;
            let path = format!("/proc/{}/ns/net", thread.display());
            server.run(&format!("ip link add port{number} type veth peer name wire netns {path}"))?;
            Ok(())
        })?;
        server
            .run(&format!("ip link set port{number} up && ip route add {address}/32 dev port{number} src {SERVER}"))?;
        station.run(&format!("ip address add {address}/24 dev wire && ip link set wire up"))?;
        Ok(station)
    }
}

/// Runs all hosts at once, each with its own targets, and returns their output.
fn all_at_once(plant: &Plant, line: &Line, options: &[&str]) -> anyhow::Result<Vec<Run>> {
    let one = |number: usize| -> anyhow::Result<Run> {
        let (from, to) = LISTS[number];
        let (template, base) = (text(&target(line, number, "{serial}")), text(&line.station.rootfs()));
        let list = range(from, to);
        let fixed = ["batch", &list, "--rootfs", &template, "--base", &base, "--owner", "current", "--json"];
        let arguments = [&fixed, options].concat();
        plant.stations[number].inside(|| line.station.provision(&arguments))
    };
    thread::scope(|scope| {
        let one = &one;
        let threads: Vec<_> = (0..LISTS.len()).map(|number| scope.spawn(move || one(number))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

fn target(line: &Line, station: usize, serial: &str) -> std::path::PathBuf {
    line.units().join(format!("station-{station}")).join(serial)
}

/// For each device the outcomes at the hosts, and the hosts whose file the API accepts.
struct Unit {
    outcomes: Vec<(usize, String)>,
    let_in: Vec<usize>,
    files: usize,
}

fn units(line: &Line, runs: &[Run]) -> anyhow::Result<BTreeMap<String, Unit>> {
    let mut units = BTreeMap::new();
    for serial in serials(1, UNITS) {
        units.insert(serial, Unit { outcomes: Vec::new(), let_in: Vec::new(), files: 0 });
    }
    for (station, run) in runs.iter().enumerate() {
        for (serial, outcome) in outcomes(run)? {
            let conf = target(line, station, &serial).join(CONF);
            let unit = units.get_mut(&serial).unwrap();
            unit.outcomes.push((station, outcome));
            let Some(password) = conf_value(&conf, "AZAION_DEVICE_PASSWORD") else { continue };
            azaion_tests::record::secret(&password)?;
            unit.files += 1;
            if line.station.api.password_is(&email(&serial), &password) {
                unit.let_in.push(station);
            }
        }
    }
    Ok(units)
}

fn plant() -> anyhow::Result<(Plant, Line)> {
    native()?;
    let plant = Plant::new()?;
    let options = Options { listen: format!("{SERVER}:0").parse()?, ..Options::default() };
    let line = plant.server.inside(|| Line::new(options))?;
    Ok((plant, line))
}

fn count(unit: &Unit, outcome: &str) -> usize {
    unit.outcomes.iter().filter(|(_, other)| other == outcome).count()
}

// Promise: hosts with overlapping lists create one user per device. Exactly one of their files is accepted by the API,
// and each host that provisioned another's device again reports it, by its outcome and by a warning that names the
// device.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn four_with_lists_that_overlap() -> anyhow::Result<()> {
    let (plant, line) = plant()?;
    let runs = all_at_once(&plant, &line, &[])?;
    assert_eq!(line.station.api.users().len(), UNITS);
    let mut again = 0;
    for (serial, unit) in units(&line, &runs)? {
        ensure!(
            unit.let_in.len() == 1,
            "{serial}: the API accepts the files of {:?}: {:?}",
            unit.let_in,
            unit.outcomes
        );
        ensure!(count(&unit, "created") == 1, "{serial}: {:?}", unit.outcomes);
        for (station, outcome) in unit.outcomes.iter().filter(|(_, outcome)| outcome != "created") {
            // A host whose new password was replaced before it was tried reports that, too.
            ensure!(["updated", "failed"].contains(&outcome.as_str()), "{serial} at {station}: {outcome}");
            let warning = format!("setting a new password for {}", email(&serial));
            ensure!(runs[*station].stderr.contains(&warning), "{serial} at {station}: no warning");
            again += usize::from(outcome == "updated");
        }
        let last = unit.let_in[0];
        ensure!(unit.outcomes.iter().any(|(s, o)| *s == last && o != "failed"), "{serial}: {:?}", unit.outcomes);
    }
    println!("{again} devices were provisioned again by another host, which reported it");
    Ok(())
}

// Promise: with `refuse` the first host gets the device, the others fail with 73 and leave no file.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn four_that_refuse() -> anyhow::Result<()> {
    let (plant, line) = plant()?;
    let runs = all_at_once(&plant, &line, &["--on-existing", "refuse"])?;
    assert_eq!(line.station.api.users().len(), UNITS);
    for (serial, unit) in units(&line, &runs)? {
        ensure!((unit.let_in.len(), unit.files) == (1, 1), "{serial}: {:?}", unit.outcomes);
        ensure!(count(&unit, "created") == 1 && count(&unit, "failed") == unit.outcomes.len() - 1, "{serial}");
    }
    for run in runs {
        let mut lines = run.json_lines()?;
        lines.pop();
        let codes = lines.iter().map(|line| line["exit_code"].as_u64());
        ensure!(codes.clone().all(|code| [Some(0), Some(73)].contains(&code)), "{}", run.words());
        let failed = lines.iter().any(|line| line["outcome"] == "failed");
        run.ended_with(if failed { 73 } else { 0 })?;
    }
    Ok(())
}
