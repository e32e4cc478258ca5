//! The fenced blocks of the pages in `docs/`, which tests run.

use std::fs;

use anyhow::{Context, ensure};

use crate::programs::workspace;

/// A page whose blocks are run.
#[derive(Clone, Copy, Debug)]
pub struct Page(pub &'static str);

/// A fenced block; its name follows the three backticks.
#[derive(Debug)]
pub struct Block {
    /// The language and the words after it.
    pub name: String,
    /// Its content.
    pub text: String,
}

impl Page {
    /// Returns all blocks in order.
    ///
    /// # Errors
    /// The page can't be read.
    pub fn blocks(self) -> anyhow::Result<Vec<Block>> {
        let page = fs::read_to_string(workspace().join(self.0))?;
        let mut blocks = Vec::new();
        for block in page.split("\n```").skip(1).step_by(2) {
            let (name, text) = block.split_once('\n').context("a block has lines")?;
            blocks.push(Block { name: name.to_owned(), text: format!("{text}\n") });
        }
        Ok(blocks)
    }

    /// Returns the text of the block with this name, if there is one.
    ///
    /// # Errors
    /// There are several.
    pub fn find(self, name: &str) -> anyhow::Result<Option<String>> {
        let found: Vec<Block> = self.blocks()?.into_iter().filter(|block| block.name == name).collect();
        ensure!(found.len() < 2, "{} has two blocks {name}", self.0);
        Ok(found.into_iter().next().map(|block| block.text))
    }

    /// Returns the commands of the block with this name.
    ///
    /// # Errors
    /// There is none, or there are several.
    pub fn commands(self, mark: &str) -> anyhow::Result<String> {
        self.find(&format!("sh {mark}"))?.with_context(|| format!("{} has no block {mark}", self.0))
    }

    /// Returns the lines that the page says those commands print, among others.
    ///
    /// # Errors
    /// There are several such blocks.
    pub fn printed(self, mark: &str) -> anyhow::Result<String> {
        Ok(self.find(&format!("text {mark}"))?.unwrap_or_default())
    }
}

/// Returns whether a line matches the page; `…` matches anything.
pub fn is_like(line: &str, pattern: &str) -> bool {
    let (first, rest) = pattern.split_once('…').unwrap_or((pattern, ""));
    let Some(mut tail) = line.strip_prefix(first) else { return false };
    if first.len() == pattern.len() {
        return tail.is_empty();
    }
    let parts: Vec<&str> = rest.split('…').collect();
    let Some((last, between)) = parts.split_last() else { return false };
    between.iter().all(|part| tail.split_once(part).map(|(_, after)| tail = after).is_some()) && tail.ends_with(last)
}

/// Fails unless all lines of the page occur in the output, in order.
///
/// # Panics
/// A line was not said, or not in this order.
pub fn contains_in_order(said: &str, lines: &str) {
    let mut said_lines = said.lines();
    for line in lines.lines() {
        assert!(said_lines.any(|said| is_like(said, line)), "missing, or in another order: {line}\n{said}");
    }
}
