//! The command blocks of `docs/line.md`, and what holds for all pages: command lines, options and links.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use azaion_tests::pages::{Block, Page};
use azaion_tests::programs::workspace;

/// The page; its blocks are named `LANGUAGE line=FLOW STEP`.
pub(crate) const LINE: Page = Page("docs/line.md");

/// Returns the first lines of the record that the loop of a flow writes, as the page has them.
pub(crate) fn recorded(flow: &str) -> anyhow::Result<String> {
    Ok(LINE.find(&format!("json line={flow} loop"))?.unwrap_or_default())
}

// Promise: every command block of the page is run, and every output block is compared.
#[test]
fn every_block_is_run() -> anyhow::Result<()> {
    let flows = crate::flows::FLOWS.iter();
    let steps = flows.flat_map(|flow| ["once", "unit", "loop"].map(|step| format!("line={} {step}", flow.name)));
    let mut steps: Vec<String> = steps.collect();
    steps.push(format!("line={}", crate::flows::R36));
    let marked = LINE.blocks()?.into_iter().filter(|block| block.name.contains(" line="));
    let (commands, words): (Vec<Block>, Vec<Block>) = marked.partition(|block| block.name.starts_with("sh "));
    let commands: Vec<&str> = commands.iter().filter_map(|block| block.name.strip_prefix("sh ")).collect();
    assert_eq!(commands, steps);
    for block in words {
        let of = block.name.strip_prefix("text ").or(block.name.strip_prefix("json ")).unwrap_or_default();
        assert!(steps.iter().any(|step| step == of), "{}", block.name);
    }
    Ok(())
}

/// Returns the command lines of a page that start with this program, each as its words; what follows a pipe or `>` is
/// not included.
fn lines_of(text: &str, program: &str) -> Vec<Vec<String>> {
    let joined = text.replace("\\\n", " ");
    let starts = joined.lines().map(str::trim_start).filter(|line| line.starts_with(&format!("{program} ")));
    let own =
        |line: &str| line.split(" #").next().and_then(|line| line.split([';', '|', '>']).next().map(str::to_owned));
    let words = |line: String| line.split_whitespace().map(|word| word.trim_matches(['"', '\'']).to_owned()).collect();
    starts.filter_map(own).map(words).collect()
}

// Promise: the program accepts every command line of the host tool in the pages.
#[test]
fn every_command_line_is_taken() -> anyhow::Result<()> {
    let mut taken = 0;
    for page in [
        "README.md",
        "docs/contracts.md",
        "docs/line.md",
        "docs/migration.md",
        "docs/runbook.md",
        "docs/scale.md",
        "docs/security.md",
    ] {
        for block in Page(page).blocks()?.iter().filter(|block| block.name.starts_with("sh")) {
            for mut words in lines_of(&block.text, "azaion-provision") {
                if !words.iter().any(|word| word == "--api-url") {
                    words.extend(["--api-url".to_owned(), "https://admin.example.com".to_owned()]);
                }
                let needs_api = !["inspect", "clear", "--version"].contains(&words[1].as_str());
                words.truncate(words.len() - if needs_api { 0 } else { 2 });
                match azaion_provision::command().try_get_matches_from(&words) {
                    Err(error) if error.use_stderr() => panic!("{page}: {words:?}: {error}"),
                    _ => taken += 1,
                }
            }
        }
    }
    assert!(taken > 15, "only {taken} were found");
    Ok(())
}

// Promise: each option and each variable of the host tool that `docs/migration.md` names exists.
#[test]
fn the_options_of_the_migration_exist() -> anyhow::Result<()> {
    let host = azaion_provision::command();
    let arguments: Vec<_> = host.get_subcommands().chain([&host]).flat_map(clap::Command::get_arguments).collect();
    let options: BTreeSet<String> = arguments.iter().filter_map(|a| Some(format!("--{}", a.get_long()?))).collect();
    let page = fs::read_to_string(workspace().join("docs/migration.md"))?;
    let quoted = page.split('`').flat_map(|text| text.split([' ', '\n', '.', ',']));
    let named: BTreeSet<&str> = quoted.clone().filter(|word| word.starts_with("--") && word.len() > 3).collect();
    // Those of other programs, in blocks.
    let others = [
        "--arg",
        "--config",
        "--data",
        "--data-binary",
        "--fail",
        "--header",
        "--rawfile",
        "--request",
        "--show-error",
        "--silent",
    ];
    for option in named.iter().filter(|option| !others.contains(option)) {
        ensure!(options.contains(*option), "no such option: {option}");
    }
    ensure!(named.contains("--server-assigned") && named.contains("--on-existing"), "{named:?}");
    let variables: BTreeSet<&str> = arguments.iter().filter_map(|argument| argument.get_env()?.to_str()).collect();
    for variable in quoted.filter(|word| word.starts_with("AZAION_A") || word.starts_with("AZAION_CA")) {
        let name = variable.split(['=', '"', '`']).next().unwrap_or_default();
        let is_key = ["AZAION_API_URL", "AZAION_ADMIN_PASSWORD"].contains(&name);
        ensure!(variables.contains(name) || is_key, "no such variable: {name}");
    }
    Ok(())
}

/// Returns the pages for readers: those at the top level and below `docs/`.
fn pages() -> anyhow::Result<Vec<PathBuf>> {
    let mut pages = Vec::new();
    for directory in [".", "docs", "docs/decisions"] {
        for entry in fs::read_dir(workspace().join(directory))? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "md") {
                pages.push(path.canonicalize()?);
            }
        }
    }
    Ok(pages)
}

/// Returns a page without its fenced blocks.
fn prose(page: &Path) -> anyhow::Result<String> {
    let text = fs::read_to_string(page)?;
    Ok(format!("\n{text}").split("\n```").step_by(2).map(|part| part.to_owned() + "\n").collect())
}

/// Returns the anchor of a heading, as GitHub generates it.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

// Promise: each link of a page to a file of ours leads to an existing file, and to an existing heading.
#[test]
fn links_lead_somewhere() -> anyhow::Result<()> {
    let mut anchors: BTreeMap<PathBuf, Vec<String>> = BTreeMap::new();
    for page in pages()? {
        let text = prose(&page)?;
        let headings = text.lines().filter(|line| line.starts_with('#'));
        anchors.insert(page, headings.map(|line| anchor(line.trim_start_matches('#'))).collect());
    }
    let mut links = 0;
    for page in anchors.keys() {
        for link in prose(page)?.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            if file.contains("://") {
                continue;
            }
            links += 1;
            let target = if file.is_empty() { page.clone() } else { page.with_file_name("").join(file) };
            let target = target.canonicalize().with_context(|| format!("{}: {link}", page.display()))?;
            let has_heading = || anchors.get(&target).is_some_and(|anchors| anchors.iter().any(|a| a == heading));
            ensure!(heading.is_empty() || has_heading(), "{}: no such heading: {link}", page.display());
        }
    }
    ensure!(links > 50, "only {links} were found");
    Ok(())
}
