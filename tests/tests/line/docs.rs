//! The command blocks of `docs/line.md`.

use azaion_tests::pages::{Block, Page};

/// The page; its blocks are named `LANGUAGE line=FLOW STEP`.
pub(crate) const LINE: Page = Page("docs/line.md");

/// The first lines of the record that the loop of a flow writes, as the page has them.
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

/// The command lines of a page that start with this program, each as its words; what follows a pipe or `>` is not its own.
fn lines_of(text: &str, program: &str) -> Vec<Vec<String>> {
    let joined = text.replace("\\\n", " ");
    let starts = joined.lines().map(str::trim_start).filter(|line| line.starts_with(&format!("{program} ")));
    let own =
        |line: &str| line.split(" #").next().and_then(|line| line.split([';', '|', '>']).next().map(str::to_owned));
    let words = |line: String| line.split_whitespace().map(|word| word.trim_matches(['"', '\'']).to_owned()).collect();
    starts.filter_map(own).map(words).collect()
}

// Promise: the program accepts every command line of the host tool that a page has.
#[test]
fn every_command_line_is_taken() -> anyhow::Result<()> {
    let mut taken = 0;
    for page in
        ["README.md", "docs/line.md", "docs/runbook.md", "docs/scale.md", "docs/security.md", "docs/contracts.md"]
    {
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
