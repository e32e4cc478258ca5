//! The command blocks of the pages in `docs/`.

use std::fs;

use anyhow::{Context, ensure};
use azaion_tests::programs::workspace;

/// A page whose blocks are run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Page(pub(crate) &'static str);

/// The page with the flows of a line; its blocks are named `LANGUAGE line=FLOW STEP`.
pub(crate) const LINE: Page = Page("docs/line.md");

/// A fenced block; its name stands behind the three backticks.
#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) name: String,
    text: String,
}

impl Page {
    pub(crate) fn blocks(self) -> anyhow::Result<Vec<Block>> {
        let page = fs::read_to_string(workspace().join(self.0))?;
        let mut blocks = Vec::new();
        for block in page.split("\n```").skip(1).step_by(2) {
            let (name, text) = block.split_once('\n').context("a block has lines")?;
            blocks.push(Block { name: name.to_owned(), text: format!("{text}\n") });
        }
        Ok(blocks)
    }

    fn find(self, name: &str) -> anyhow::Result<Option<String>> {
        let found: Vec<Block> = self.blocks()?.into_iter().filter(|block| block.name == name).collect();
        ensure!(found.len() < 2, "{} has two blocks {name}", self.0);
        Ok(found.into_iter().next().map(|block| block.text))
    }

    /// The commands of a block that is named so.
    pub(crate) fn commands(self, mark: &str) -> anyhow::Result<String> {
        self.find(&format!("sh {mark}"))?.with_context(|| format!("{} has no {mark}", self.0))
    }

    /// The lines that the page says those print, among others.
    pub(crate) fn printed(self, mark: &str) -> anyhow::Result<String> {
        Ok(self.find(&format!("text {mark}"))?.unwrap_or_default())
    }
}

/// The lines that the page says the loop of a flow puts on record, to begin with.
pub(crate) fn recorded(flow: &str) -> anyhow::Result<String> {
    Ok(LINE.find(&format!("json line={flow} loop"))?.unwrap_or_default())
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

/// Fails unless all lines that a page has were said, in their order.
pub(crate) fn contains_in_order(said: &str, lines: &str) {
    let mut said_lines = said.lines();
    for line in lines.lines() {
        assert!(said_lines.any(|said| is_like(said, line)), "not said, or not in this order: {line}\n{said}");
    }
}

// Promise: no command of the page is left untried, and what it says of their words is compared.
#[test]
fn every_block_is_run() -> anyhow::Result<()> {
    let flows = crate::flows::FLOWS.iter();
    let steps = flows.flat_map(|flow| ["once", "unit", "loop"].map(|step| format!("line={} {step}", flow.name)));
    let steps: Vec<String> = steps.collect();
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
