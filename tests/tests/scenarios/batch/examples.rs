//! The examples for job engines contain valid commands of this program.

use std::fs;

use azaion_tests::dev_api::Options;
use azaion_tests::programs::workspace;
use serde_json::Value;

use super::{Line, said, text};

/// How to extract the program's arguments, given the file as parsed by Python.
const YAML: [(&str, &str); 2] = [
    (
        "ansible.yml",
        "next(t['ansible.builtin.command']['argv'] for t in file[0]['tasks'] if 'ansible.builtin.command' in t)",
    ),
    ("kubernetes-job.yaml", "(lambda c: c['command'] + c['args'])(file['spec']['template']['spec']['containers'][0])"),
];

/// Returns the program's arguments in an example.
fn arguments(name: &str) -> anyhow::Result<Vec<String>> {
    let path = text(&workspace().join("docs/examples").join(name));
    if let Some((_, find)) = YAML.iter().find(|(yaml, _)| *yaml == name) {
        let script =
            format!("import json, sys, yaml\nfile = yaml.safe_load(open(sys.argv[1]))\nprint(json.dumps({find}))");
        return Ok(serde_json::from_str(&said("python3", &["-c", &script, &path])?)?);
    }
    // The list after `args`, with a comma after its last element, as HCL allows and JSON does not.
    let content = fs::read_to_string(path)?;
    let list = content.split_once("args = [").and_then(|(_, rest)| rest.split_once(']')).unwrap().0;
    let list: Value = serde_json::from_str(&format!("[\"azaion-provision\", {}]", list.trim().trim_end_matches(',')))?;
    Ok(serde_json::from_value(list)?)
}

// Promise: each example for a job engine is well-formed, and its command works once its paths are replaced.
#[test]
fn the_examples_for_job_engines() -> anyhow::Result<()> {
    for name in ["ansible.yml", "kubernetes-job.yaml", "nomad.hcl"] {
        let line = Line::new(Options::default())?;
        line.station.put("flash/list.csv", "serial,line\nAZJN-0001,3\nAZJN-0002,3\n", 0o600)?;
        let (base, tree) = (text(&line.station.path("flash/base.img")), text(&line.station.rootfs()));
        said("mkfs.ext4", &["-q", "-F", "-b", "4096", "-d", &tree, &base, "16M"])?;
        let place = |word: &String| match word.rsplit_once('/') {
            Some((_, file)) => text(&line.station.path("flash").join(file)),
            None => word.clone(),
        };
        let words: Vec<String> = arguments(name)?.iter().map(place).collect();
        assert_eq!(words[..2], ["azaion-provision", "batch"], "{name}");
        let words: Vec<&str> = words[1..].iter().map(String::as_str).collect();
        let run = line.wait(line.station.start_provision(&words)?)?.ended_with(0)?;
        assert!(run.stdout.contains(r#""outcomes":{"created":2}"#), "{name}: {}", run.stdout);
    }
    Ok(())
}
