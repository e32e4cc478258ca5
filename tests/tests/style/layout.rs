//! Checks that modules import each other in one direction only, and that no file is too long.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use azaion_tests::programs::workspace;

/// Maximum lines of product code in a file, without its tests.
const LONGEST: usize = 300;

type Modules = BTreeMap<String, String>;

/// Returns the Rust files of a crate by module path (`target::image::tar`), without tests.
fn modules(src: &Path) -> anyhow::Result<Modules> {
    let mut all = Modules::new();
    for file in rust_files(src)? {
        let name = file.strip_prefix(src)?.with_extension("").display().to_string().replace('/', "::");
        let is_product = !name.split("::").any(|part| ["tests", "model", "fixture"].contains(&part));
        if is_product && !["lib", "main"].contains(&name.as_str()) {
            all.insert(name, product_code(&fs::read_to_string(&file)?));
        }
    }
    Ok(all)
}

fn rust_files(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(rust_files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(files)
}

/// Returns the text before the tests, which end a file.
fn product_code(text: &str) -> String {
    let lines = text.lines().take_while(|line| !line.starts_with("mod tests")).filter(|line| !is_comment(line));
    lines.collect::<Vec<_>>().join("\n")
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with("//")
}

/// Returns all paths in a text: those of `use` with their groups expanded, and those in the code.
fn paths(text: &str) -> Vec<String> {
    let starts = ["crate::", "super::"];
    let is_use = |before: &str| {
        let line = before.rsplit('\n').next().unwrap_or_default().trim();
        line.is_empty() || line == "pub" || line.starts_with("pub(")
    };
    let uses = text.match_indices("use ").filter(|(at, _)| is_use(&text[..*at]));
    let trees = uses.filter_map(|(at, word)| text[at + word.len()..].split_once(';')).map(|(tree, _)| tree);
    let uses = trees.flat_map(expand);
    let words = text.split(|c: char| !c.is_alphanumeric() && c != '_' && c != ':').map(str::to_owned);
    uses.chain(words).filter(|path| starts.iter().any(|start| path.starts_with(start))).collect()
}

/// Expands `a::{b, c::{d, e}}` to `a::b`, `a::c::d`, `a::c::e`.
fn expand(tree: &str) -> Vec<String> {
    let tree: String = tree.split_whitespace().collect();
    let Some((prefix, group)) = tree.split_once('{') else { return vec![tree] };
    let group = group.strip_suffix('}').unwrap_or(group);
    let (mut parts, mut depth) = (vec![String::new()], 0_u32);
    for c in group.chars() {
        match c {
            ',' if depth == 0 => parts.push(String::new()),
            _ => {
                depth = if c == '{' { depth + 1 } else { depth.saturating_sub(u32::from(c == '}')) };
                parts.last_mut().unwrap().push(c);
            }
        }
    }
    parts
        .iter()
        .filter(|part| !part.is_empty())
        .flat_map(|part| expand(part))
        .map(|part| format!("{prefix}{part}"))
        .collect()
}

/// Returns the module that a path in `from` refers to, if it is neither `from` itself nor above or below it.
fn target(modules: &Modules, from: &str, path: &str) -> Option<String> {
    let mut base: Vec<&str> = from.split("::").collect();
    let mut rest = path.split("::").peekable();
    if rest.next_if_eq(&"crate").is_some() {
        base.clear();
    }
    while rest.next_if_eq(&"super").is_some() {
        base.pop();
    }
    base.extend(rest);
    let found =
        (1..=base.len()).rev().map(|length| base[..length].join("::")).find(|name| modules.contains_key(name))?;
    let is_kin = |a: &str, b: &str| a == b || a.starts_with(&format!("{b}::"));
    (!is_kin(&found, from) && !is_kin(from, &found)).then_some(found)
}

fn edges(modules: &Modules) -> BTreeMap<&str, BTreeSet<String>> {
    let of =
        |(name, text): (&String, &String)| paths(text).iter().filter_map(|path| target(modules, name, path)).collect();
    modules.iter().map(|module| (module.0.as_str(), of(module))).collect()
}

/// Returns an import cycle, if there is one.
fn circle(edges: &BTreeMap<&str, BTreeSet<String>>) -> Option<Vec<String>> {
    edges.keys().find_map(|start| {
        let mut ways: Vec<Vec<String>> = vec![vec![(*start).to_owned()]];
        let mut seen = BTreeSet::new();
        while let Some(way) = ways.pop() {
            for next in &edges[way.last().unwrap().as_str()] {
                let longer = [way.clone(), vec![next.clone()]].concat();
                if next == start {
                    return Some(longer);
                }
                if seen.insert(next.clone()) {
                    ways.push(longer);
                }
            }
        }
        None
    })
}

// Promise: no module imports another one that imports it, directly or through others; a parent and its children may use
// each other.
#[test]
fn imports_have_no_circles() -> anyhow::Result<()> {
    for source in ["agent/src", "host/src"] {
        let modules = modules(&workspace().join(source))?;
        let edges = edges(&modules);
        let count: usize = edges.values().map(BTreeSet::len).sum();
        println!("{source}: {} modules, {count} imports", modules.len());
        assert!(count > 100, "{source}: only {count} imports were found");
        assert_eq!(circle(&edges), None, "{source}");
    }
    Ok(())
}

// Promise: a cycle is found, also through groups and `super`.
#[test]
fn a_circle_is_found() {
    let file = |name: &str, text: &str| (name.to_owned(), text.to_owned());
    let text = "use crate::{a::{One, Two}, c};\n";
    let modules = Modules::from([file("a", "use super::b::x;\n"), file("b", text), file("c", ""), file("a::d", "")]);
    assert_eq!(circle(&edges(&modules)).unwrap(), ["a", "b", "a"]);
    let without =
        Modules::from([file("a", "use super::c;\nmod d;\n"), file("c", ""), file("a::d", "use super::One;\n")]);
    assert_eq!(circle(&edges(&without)), None);
}

// Promise: no file of the two programs has more than the maximum of product code.
#[test]
fn files_are_short() -> anyhow::Result<()> {
    for source in ["agent/src", "host/src"] {
        let mut lengths = Vec::new();
        for file in rust_files(&workspace().join(source))? {
            let text = fs::read_to_string(&file)?;
            lengths.push((text.lines().take_while(|line| !line.starts_with("mod tests")).count(), file));
        }
        lengths.sort();
        let Some((longest, file)) =
            lengths.iter().rfind(|(_, file)| !is_test(file.strip_prefix(workspace()).unwrap_or(file)))
        else {
            continue;
        };
        println!("{source}: the longest file is {} with {longest} lines", file.display());
        assert!(*longest <= LONGEST, "{}: {longest} lines", file.display());
    }
    Ok(())
}

/// Whether a file is `tests.rs`, or lies in a directory of tests.
fn is_test(file: &Path) -> bool {
    file.iter().any(|part| part == "tests" || part == "tests.rs")
}
