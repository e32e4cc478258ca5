//! The command blocks of `docs/line.md`.

use std::fs;

use anyhow::Context;
use azaion_tests::programs::workspace;

/// A fenced block; behind the three backticks stands its name: `LANGUAGE line=FLOW STEP`.
#[derive(Debug)]
struct Block {
    name: String,
    text: String,
}

/// The blocks that are marked for the tests.
fn blocks() -> anyhow::Result<Vec<Block>> {
    let page = fs::read_to_string(workspace().join("docs/line.md"))?;
    let mut blocks = Vec::new();
    for block in page.split("\n```").skip(1).step_by(2) {
        let (name, text) = block.split_once('\n').context("a block has lines")?;
        if name.contains(" line=") {
            blocks.push(Block { name: name.to_owned(), text: format!("{text}\n") });
        }
    }
    Ok(blocks)
}

fn find(name: &str) -> anyhow::Result<Option<String>> {
    let found: Vec<Block> = blocks()?.into_iter().filter(|block| block.name == name).collect();
    anyhow::ensure!(found.len() < 2, "docs/line.md has two blocks {name}");
    Ok(found.into_iter().next().map(|block| block.text))
}

/// The commands of a step of a flow: `once`, `unit` or `loop`.
pub(crate) fn commands(flow: &str, step: &str) -> anyhow::Result<String> {
    find(&format!("sh line={flow} {step}"))?.with_context(|| format!("docs/line.md has no {step} of {flow}"))
}

/// The lines that the page says a step of a flow prints, among others.
pub(crate) fn printed(flow: &str, step: &str) -> anyhow::Result<String> {
    Ok(find(&format!("text line={flow} {step}"))?.unwrap_or_default())
}

/// The lines that the page says the loop of a flow puts on record, to begin with.
pub(crate) fn recorded(flow: &str) -> anyhow::Result<String> {
    Ok(find(&format!("json line={flow} loop"))?.unwrap_or_default())
}

/// Whether a line is as the page has it; `…` is for anything.
pub(crate) fn is_like(line: &str, pattern: &str) -> bool {
    let (first, rest) = pattern.split_once('…').unwrap_or((pattern, ""));
    let Some(mut tail) = line.strip_prefix(first) else { return false };
    if first.len() == pattern.len() {
        return tail.is_empty();
    }
    let parts: Vec<&str> = rest.split('…').collect();
    let (last, between) = parts.split_last().unwrap();
    between.iter().all(|part| tail.split_once(part).map(|(_, after)| tail = after).is_some()) && tail.ends_with(last)
}

// Promise: no command of the page is left untried, and what it says of their words is compared.
#[test]
fn every_block_is_run() -> anyhow::Result<()> {
    let flows = crate::flows::FLOWS.iter();
    let steps = flows.flat_map(|flow| ["once", "unit", "loop"].map(|step| format!("line={} {step}", flow.name)));
    let steps: Vec<String> = steps.collect();
    let (commands, words): (Vec<Block>, Vec<Block>) =
        blocks()?.into_iter().partition(|block| block.name.starts_with("sh "));
    let commands: Vec<&str> = commands.iter().filter_map(|block| block.name.strip_prefix("sh ")).collect();
    assert_eq!(commands, steps);
    for block in words {
        let of = block.name.strip_prefix("text ").or(block.name.strip_prefix("json ")).unwrap_or_default();
        assert!(steps.iter().any(|step| step == of), "{}", block.name);
    }
    Ok(())
}
