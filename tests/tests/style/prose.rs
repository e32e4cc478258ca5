//! Checks the words of comments, messages and pages: one term for one thing, and the one that the field uses.

use std::fs;
use std::path::{Path, PathBuf};

use azaion_tests::programs::workspace;

/// Words that mean something else here, or nothing to a newcomer, and what to write instead.
const WORDS: &str = include_str!("words.tsv");

// Promise: comments, messages and pages do not use a word for which the glossary has another one.
#[test]
fn words_are_those_of_the_field() -> anyhow::Result<()> {
    let words: Vec<(&str, &str)> =
        WORDS.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('\t')).collect();
    anyhow::ensure!(words.len() > 20, "words.tsv has {} rows", words.len());
    let mut found = Vec::new();
    for file in texts(workspace())? {
        let text = fs::read_to_string(&file)?;
        let is_page = file.extension().is_some_and(|extension| extension == "md");
        let mut is_code = false;
        for (number, line) in text.lines().enumerate() {
            is_code ^= is_page && line.trim_start().starts_with("```");
            let prose = if is_page { page_prose(line, is_code) } else { code_prose(line) };
            for (word, instead) in words.iter().filter(|(word, _)| contains(&prose, word)) {
                let name = file.strip_prefix(workspace())?.display();
                found.push(format!("{name}:{}: \"{word}\": write {instead}", number + 1));
            }
        }
    }
    anyhow::ensure!(found.is_empty(), "{}", found.join("\n"));
    Ok(())
}

// Promise: the check finds a word in a comment and in a message, as a whole word, and nowhere else.
#[test]
fn prose_is_told_from_code() {
    for (line, expected) in [
        ("    /// The folder of it", true),
        ("let a = folder(); // not ours: folder", true),
        ("log::warn!(\"{name}: the folder is full\");", true),
        ("let folder = folder();", false),
        ("open(\"/data/folder/x\")", false),
        ("/// The folders-of-it", false),
        ("/// Reads [`folder`]", false),
    ] {
        assert_eq!(contains(&code_prose(line), "folder"), expected, "{line}");
    }
    assert!(contains(&page_prose("The Folder.", false), "folder"));
    assert!(
        !contains(&page_prose("`the folder`", false), "folder") && !contains(&page_prose("folder", true), "folder")
    );
}

/// Returns the Rust files and pages of the workspace; not those that record what happened, nor the sources of fixtures.
fn texts(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let is_text = path.extension().is_some_and(|extension| extension == "rs" || extension == "md");
        if name.starts_with('.') || ["target", "data", "corpus", "style", "CHANGELOG.md"].contains(&name.as_str()) {
            continue;
        }
        if path.is_dir() {
            files.extend(texts(&path)?);
        } else if is_text {
            files.push(path);
        }
    }
    Ok(files)
}

/// Returns the comment of a line, and its string literals that are sentences.
fn code_prose(line: &str) -> String {
    let (code, comment) = line.split_once("// ").or_else(|| line.split_once("/// ")).unwrap_or((line, ""));
    let comment = if line.trim_start().starts_with("//") { line } else { comment };
    let code = if line.trim_start().starts_with("//") { "" } else { code };
    let sentences = code.split('"').skip(1).step_by(2).filter(|text| text.contains(' '));
    without_quotations(&[comment].into_iter().chain(sentences).collect::<Vec<_>>().join(" | "))
}

fn page_prose(line: &str, is_code: bool) -> String {
    if is_code { String::new() } else { without_quotations(line) }
}

/// Removes what stands in backquotes: names, commands and messages of other programs.
fn without_quotations(text: &str) -> String {
    text.split('`').step_by(2).collect::<Vec<_>>().join(" ")
}

/// Whether a text has a word, or words, as a whole and in any case.
fn contains(text: &str, word: &str) -> bool {
    let text = text.to_lowercase();
    let is_inside = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || "_-/{}".contains(c));
    text.match_indices(word)
        .any(|(at, _)| !is_inside(text[..at].chars().next_back()) && !is_inside(text[at + word.len()..].chars().next()))
}
