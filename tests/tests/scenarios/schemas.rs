//! `docs/schema`: each schema against the actual output and files of the programs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use azaion_tests::dev_api::Options;
use azaion_tests::programs::{Run, output, workspace};
use azaion_tests::schemas;
use azaion_tests::station::{EMAIL, Station};
use serde_json::Value;

/// The agent's files with their directories.
const FILES: [&str; 6] = [
    "run/azaion/token",
    "run/azaion/ready",
    "run/azaion/refresh",
    "run/azaion/backoff",
    "var/lib/azaion/first-boot",
    "var/lib/azaion/history",
];

/// Samples of each schema.
#[derive(Default)]
struct Samples(BTreeMap<String, Vec<Value>>);

impl Samples {
    fn add(&mut self, name: &str, sample: Value) {
        self.0.entry(name.to_owned()).or_default().push(sample);
    }

    /// Adds the lines that a program printed, all of one schema.
    fn add_lines(&mut self, name: &str, run: &Run) -> anyhow::Result<()> {
        let lines = run.json_lines()?;
        ensure!(!lines.is_empty(), "no output: {}", run.words());
        self.0.entry(name.to_owned()).or_default().extend(lines);
        Ok(())
    }

    /// Adds the output of a batch: devices, then their summary.
    fn add_batch(&mut self, name: &str, run: &Run) -> anyhow::Result<()> {
        let mut lines = run.json_lines()?;
        self.add("batch-summary", lines.pop().context("a summary")?);
        self.0.entry(name.to_owned()).or_default().extend(lines);
        Ok(())
    }

    /// Adds the existing files of the agent.
    fn add_files(&mut self, station: &Station) {
        for path in FILES {
            if let (Some((_, name)), Some(sample)) = (path.rsplit_once('/'), station.json(&format!("{path}.json"))) {
                self.add(name, sample);
            }
        }
    }

    /// Adds the host tool's output for a device, from an empty target to a cleared one.
    fn add_host(&mut self, station: &Station) -> anyhow::Result<()> {
        let rootfs = station.rootfs().display().to_string();
        let inspect = |samples: &mut Self| -> anyhow::Result<()> {
            samples.add_lines("inspect", &station.provision_offline(&["inspect", &rootfs, "--json"])?)
        };
        inspect(self)?;
        let check = station.provision(&["check", "--json", "--rootfs", &rootfs, "--owner", "current"])?;
        self.add_lines("check", &check.ended_with(0)?)?;
        self.add_lines("device", &station.device(&["--module-serial", "1421324012345"])?.ended_with(0)?)?;
        inspect(self)
    }

    /// Adds a batch with one device that can be provisioned, and one that fails.
    fn add_batches(&mut self, station: &Station) -> anyhow::Result<()> {
        let units = station.path("units").display().to_string();
        fs::create_dir_all(station.path("units/AZJN-0001/etc"))?;
        station.put("list.csv", "serial;order\nAZJN-0001;7\nAZJN-0002;8\n", 0o644)?;
        let (list, report) = (station.path("list.csv"), station.path("report.jsonl"));
        let (list, report) = (list.display().to_string(), report.display().to_string());
        let template = format!("{units}/{{serial}}");
        let batch = ["batch", &list, "--rootfs", &template, "--owner", "current", "--json"];
        self.add_batch("batch-dry-run", &station.provision(&[&batch[..], &["--dry-run"]].concat())?)?;
        self.add_batch("batch", &station.provision(&[&batch[..], &["--report", &report]].concat())?)?;
        for line in fs::read_to_string(report)?.lines() {
            self.add("batch", serde_json::from_str(line)?);
        }
        Ok(())
    }

    /// Adds the agent's output: first refused, then ready.
    fn add_agent(&mut self, station: &Station) -> anyhow::Result<()> {
        let password = station.password().context("a password")?;
        station.put_policy("")?;
        // The device's module is not the one in this machine.
        station.put("rootfs/proc/device-tree/serial-number", "1421324012345\0", 0o644)?;
        station.api.set_password(EMAIL, "another-password");
        station.agent(&["boot"])?.ended_with(77)?;
        self.add_files(station);
        // Standard output is not a socket here, but the answer is the same.
        self.add_lines("refusal", &station.agent(&["token", "--socket"])?.ended_with(0)?)?;
        station.api.set_password(EMAIL, &password);
        station.agent(&["boot", "--now"])?.ended_with(0)?;
        self.add_files(station);
        self.add_lines("token", &station.agent(&["token", "--json"])?.ended_with(0)?)?;
        self.add_lines("status", &station.agent(&["status", "--json"])?.ended_with(0)?)?;
        self.add_lines("status-history", &station.agent(&["status", "--history", "--json"])?.ended_with(0)?)
    }
}

fn samples(station: &Station) -> anyhow::Result<Samples> {
    let mut samples = Samples::default();
    samples.add_host(station)?;
    samples.add_batches(station)?;
    samples.add_agent(station)?;
    let rootfs = station.rootfs().display().to_string();
    station.put("rootfs/etc/azaion/device.conf", "no device.conf", 0o600)?;
    samples.add_lines("inspect", &station.provision_offline(&["inspect", &rootfs, "--json"])?.ended_with(65)?)?;
    samples.add_lines("clear", &station.provision_offline(&["clear", &rootfs, "--json"])?.ended_with(0)?)?;
    Ok(samples)
}

fn is_valid(schema: &Value, sample: &Value) -> anyhow::Result<bool> {
    Ok(jsonschema::draft202012::new(schema)?.is_valid(sample))
}

/// Returns the required fields of an object of this schema: those common to all forms, and those of the sample's form.
fn required(schema: &Value, sample: &Value) -> anyhow::Result<BTreeSet<String>> {
    let names = |schema: &Value| -> Vec<String> {
        let names = schema["required"].as_array().into_iter().flatten();
        names.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let mut all = BTreeSet::from_iter(names(schema));
    for form in schema["oneOf"].as_array().into_iter().flatten() {
        if is_valid(form, sample)? {
            all.extend(names(form));
        }
    }
    Ok(all)
}

/// Finds the objects in a sample whose fields are described, including the sample itself, as JSON pointers.
fn objects<'a>(schema: &'a Value, sample: &Value, at: &str, found: &mut Vec<(String, &'a Value)>) {
    match sample {
        Value::Object(fields) if schema.get("properties").is_some() => {
            found.push((at.to_owned(), schema));
            for (name, value) in fields {
                objects(&schema["properties"][name], value, &format!("{at}/{name}"), found);
            }
        }
        Value::Array(items) => {
            if let Some(first) = items.first() {
                objects(&schema["items"], first, &format!("{at}/0"), found);
            }
        }
        _ => {}
    }
}

fn fields<'a>(sample: &'a mut Value, at: &str) -> &'a mut serde_json::Map<String, Value> {
    sample.pointer_mut(at).and_then(Value::as_object_mut).unwrap()
}

/// Checks that a schema detects a missing field and an additional one.
fn notices_changes(name: &str, schema: &Value, sample: &Value) -> anyhow::Result<()> {
    schemas::check(name, sample)?;
    let mut found = Vec::new();
    objects(schema, sample, "", &mut found);
    for (at, schema) in found {
        for field in required(schema, sample.pointer(&at).context("an object")?)? {
            let mut less = sample.clone();
            fields(&mut less, &at).remove(&field).with_context(|| format!("{name}: no {at}/{field}"))?;
            ensure!(schemas::check(name, &less).is_err(), "{name}: the missing {at}/{field} is not detected");
        }
        let mut more = sample.clone();
        fields(&mut more, &at).insert("unknown".to_owned(), Value::Null);
        ensure!(schemas::check(name, &more).is_err(), "{name}: an additional field in {at:?} is not detected");
    }
    Ok(())
}

// Promise: each schema in docs/schema has a matching sample of a real run, in each of its forms; a sample without a
// required field, or with an additional one, does not match.
#[test]
fn changes_are_noticed() -> anyhow::Result<()> {
    let Samples(samples) = samples(&Station::new(Options::default())?)?;
    for document in schemas::documents() {
        let (name, schema) = (document.name, document.schema.to_value());
        let of_this = samples.get(name).with_context(|| format!("no sample of {name}"))?;
        for sample in of_this {
            notices_changes(name, &schema, sample).with_context(|| format!("{name}: {sample:.60}"))?;
        }
        for form in schema["oneOf"].as_array().into_iter().flatten() {
            let has_sample = of_this.iter().any(|sample| is_valid(form, sample).is_ok_and(|is_valid| is_valid));
            ensure!(has_sample, "{name}: no sample of the form {}", form["title"]);
        }
    }
    Ok(())
}

/// Returns the command in docs/schema/README.md that validates its standard input.
fn documented_command(page: &str) -> anyhow::Result<&str> {
    page.lines().find_map(|line| line.strip_prefix("    azaion-agent status --json | ")).context("a command")
}

// Promise: the page beside the schemas names each of them, and its command validates an output: 0 if it matches,
// another code if it does not.
#[test]
fn the_page_is_right() -> anyhow::Result<()> {
    let page = fs::read_to_string(workspace().join("docs/schema/README.md"))?;
    for document in schemas::documents() {
        ensure!(page.contains(&format!("({}.json)", document.name)), "the page does not name {}.json", document.name);
    }
    let validate = |lines: &str| -> anyhow::Result<bool> {
        let mut shell = Command::new("sh");
        shell.args(["-c", documented_command(&page)?]).current_dir(workspace().join("docs/schema"));
        let mut child = shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        std::io::Write::write_all(&mut child.stdin.take().context("its input")?, lines.as_bytes())?;
        Ok(child.wait()?.success())
    };
    let good = "{\"id\":\"clock\",\"status\":\"ok\",\"message\":\"synchronised\"}\n";
    assert!(validate(good)? && validate(&good.repeat(2))?);
    for bad in [good.replace("clock", "clocks"), good.replace("\"ok\"", "\"fine\""), format!("{good}{{}}\n")] {
        assert!(!validate(&bad)?, "{bad}");
    }
    Ok(())
}

// Promise: no shipped program contains the code that generates schemas.
#[test]
fn programs_have_no_schemas() -> anyhow::Result<()> {
    for package in ["azaion-agent", "azaion-provision"] {
        let mut tree = Command::new("cargo");
        tree.args(["tree", "--quiet", "--offline", "--prefix", "none", "-e", "normal", "-p", package]);
        let tree = output(tree.current_dir(Path::new(workspace())))?;
        ensure!(tree.contains("serde") && !tree.contains("schemars"), "{package}: {tree}");
    }
    Ok(())
}
