//! The bill of materials in the package.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;

use anyhow::Context;
use azaion_tests::programs::{arm64_package, output, outside_cargo, workspace};
use serde_json::Value;

/// Returns the output of a cargo command for the workspace.
fn cargo(arguments: &[&str]) -> anyhow::Result<String> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    output(outside_cargo(&mut command).current_dir(workspace()).args(arguments).args(["--quiet", "--locked"]))
}

/// Returns the bill of materials in the package for the device.
fn bill() -> anyhow::Result<Value> {
    let folder = tempfile::tempdir()?;
    output(Command::new("dpkg-deb").arg("-x").arg(arm64_package()?).arg(folder.path()))?;
    let file = folder.path().join("usr/share/doc/azaion-agent/sbom.cdx.json");
    Ok(serde_json::from_slice(&fs::read(file)?)?)
}

/// Returns `name@version` of every crate that is compiled into the agent for the device, including the agent.
fn compiled() -> anyhow::Result<BTreeSet<String>> {
    let target = ["--target", "aarch64-unknown-linux-musl", "--edges", "normal,no-proc-macro"];
    let how = ["tree", "--package", "azaion-agent", "--prefix", "none", "--format", "{p}"];
    let tree = cargo(&[&how[..], &target].concat())?;
    let name = |line: &str| {
        let mut words = line.split_whitespace();
        Some(format!("{}@{}", words.next()?, words.next()?.strip_prefix('v')?))
    };
    tree.lines().map(|line| name(line).with_context(|| line.to_owned())).collect()
}

/// Returns the checksum of each crate in Cargo.lock.
fn checksums() -> anyhow::Result<BTreeMap<String, String>> {
    let lock = fs::read_to_string(workspace().join("Cargo.lock"))?;
    let value = |package: &str, key: &str| {
        let line = package.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = "));
        line.map(|value| value.trim_matches('"').to_owned())
    };
    let entry = |package| {
        let name = format!("{}@{}", value(package, "name")?, value(package, "version")?);
        Some((name, value(package, "checksum")?))
    };
    Ok(lock.split("[[package]]").filter_map(entry).collect())
}

/// Returns the licence of every crate, as in its manifest.
fn licences() -> anyhow::Result<BTreeMap<String, String>> {
    let metadata: Value = serde_json::from_str(&cargo(&["metadata", "--format-version", "1"])?)?;
    let packages = metadata["packages"].as_array().context("packages")?;
    let text = |package: &Value, key: &str| package[key].as_str().unwrap_or_default().to_owned();
    let entry = |p: &Value| (format!("{}@{}", text(p, "name"), text(p, "version")), text(p, "license"));
    Ok(packages.iter().map(entry).collect())
}

// Promise: the package has a bill of materials (CycloneDX) with exactly the crates that are compiled into the agent for
// the device, each with its version, its licence, and its checksum in Cargo.lock.
#[test]
fn the_bill_of_materials_is_right() -> anyhow::Result<()> {
    let bill = bill()?;
    assert_eq!(
        (&bill["bomFormat"], &bill["specVersion"], &bill["version"]),
        (&"CycloneDX".into(), &"1.5".into(), &1.into())
    );
    let agent = &bill["metadata"]["component"];
    let components = bill["components"].as_array().context("components")?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (checksums, licences) = (checksums()?, licences()?);
    for component in components {
        let reference = text(&component["bom-ref"]);
        assert_eq!(reference, format!("{}@{}", text(&component["name"]), text(&component["version"])));
        assert_eq!(text(&component["purl"]), format!("pkg:cargo/{}", reference.replace('+', "%2B")));
        assert_eq!(text(&component["type"]), "library");
        let hash = &component["hashes"][0];
        assert_eq!((text(&hash["alg"]), &text(&hash["content"])), ("SHA-256".into(), &checksums[&reference]));
        let licence = licences[&reference].split('/').map(str::trim).collect::<Vec<_>>().join(" OR ");
        assert_eq!(text(&component["licenses"][0]["expression"]), licence, "{reference}");
    }
    let listed: Vec<String> = components.iter().chain([agent]).map(|component| text(&component["bom-ref"])).collect();
    assert_eq!(listed.iter().cloned().collect::<BTreeSet<_>>(), compiled()?);
    assert_eq!(listed.iter().collect::<BTreeSet<_>>().len(), listed.len(), "a crate is listed twice");
    println!("{} crates", components.len());

    // Each is a transitive dependency of the agent.
    let needs: BTreeMap<String, &Value> = bill["dependencies"]
        .as_array()
        .context("dependencies")?
        .iter()
        .map(|d| (text(&d["ref"]), &d["dependsOn"]))
        .collect();
    let mut reached = BTreeSet::new();
    let mut to_do = vec![text(&agent["bom-ref"])];
    while let Some(reference) = to_do.pop() {
        let depends_on = needs[&reference].as_array().context("a list")?;
        if reached.insert(reference) {
            to_do.extend(depends_on.iter().map(text));
        }
    }
    assert_eq!(reached.len(), listed.len(), "a listed crate is no dependency");
    Ok(())
}
