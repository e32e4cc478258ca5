//! The command blocks of `docs/line.md`.

use azaion_tests::pages::{Block, Page};

/// Its blocks are named `LANGUAGE line=FLOW STEP`.
pub(crate) const LINE: Page = Page("docs/line.md");

/// The lines that the page says the loop of a flow puts on record, to begin with.
pub(crate) fn recorded(flow: &str) -> anyhow::Result<String> {
    Ok(LINE.find(&format!("json line={flow} loop"))?.unwrap_or_default())
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
