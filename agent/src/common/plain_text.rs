//! Escapes untrusted text for output.
//!
//! Text from a server, a certificate, a file name or an image must not move the cursor, forge a line or reverse text on a terminal,
//! in the journal, in `STATUS=` or in a report. All lines that a program prints go through [`escaped`], all JSON goes through
//! [`write_json`].

use std::borrow::Cow;
use std::io::{self, Write};

use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, Serializer};

/// Whether a character is invisible or controls how other text is shown.
///
/// The control characters (C0, DEL, C1), the line and paragraph separators, and what Unicode calls default ignorable or
/// bidirectional control: zero-width characters, embeddings, overrides, isolates, fillers, variation selectors, tags.
pub fn is_control(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// Returns the text with each control character as `\u{…}`. Escaping twice gives the same text.
pub fn escaped(text: &str) -> Cow<'_, str> {
    if !text.contains(is_control) {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len() + 32);
    for c in text.chars() {
        if is_control(c) { plain.extend(c.escape_unicode()) } else { plain.push(c) }
    }
    Cow::Owned(plain)
}

/// Returns at most the first `most` bytes of a text, with an ellipsis appended if it was cut.
pub fn excerpt(text: &str, most: usize) -> Cow<'_, str> {
    let end = text.floor_char_boundary(most);
    match text.get(..end) {
        Some(start) if end < text.len() => Cow::Owned(format!("{start}…")),
        _ => Cow::Borrowed(text),
    }
}

/// Writes one JSON value without a newline. Control characters are escaped as in JSON (`\u202e`), so a reader gets the same value.
///
/// # Errors
/// The I/O error, or that of a value that JSON can't represent.
pub fn write_json(to: impl Write, value: &impl Serialize) -> io::Result<()> {
    value.serialize(&mut Serializer::with_formatter(to, Escaping)).map_err(io::Error::from)
}

/// Formats like serde's compact form, but escapes more characters than JSON requires.
struct Escaping;

impl Formatter for Escaping {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        while let Some((start, c)) = rest.char_indices().find(|&(_, c)| is_control(c)) {
            let (plain, after) = rest.split_at(start);
            CompactFormatter.write_string_fragment(writer, plain)?;
            for unit in c.encode_utf16(&mut [0; 2]) {
                write!(writer, "\\u{unit:04x}")?;
            }
            rest = after.get(c.len_utf8()..).unwrap_or_default();
        }
        CompactFormatter.write_string_fragment(writer, rest)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    // Promise: visible characters of every script stay unchanged; control characters are escaped.
    #[test]
    fn control_characters_are_escaped() {
        for (text, plain) in [
            ("", ""),
            ("AZJN-0042 is ready", "AZJN-0042 is ready"),
            ("Привіт, 世界, ñ, ‘…’, 🚁", "Привіт, 世界, ñ, ‘…’, 🚁"),
            ("back\\slash \\u{1b}", "back\\slash \\u{1b}"),
            ("a\nMAINPID=1", "a\\u{a}MAINPID=1"),
            ("a\r\tb\0", "a\\u{d}\\u{9}b\\u{0}"),
            ("\u{1b}[2J\u{7f}", "\\u{1b}[2J\\u{7f}"),
            ("\u{9b}31m\u{85}", "\\u{9b}31m\\u{85}"),
            ("\u{2028}\u{2029}", "\\u{2028}\\u{2029}"),
            ("\u{202e}gnp.exe\u{2066}\u{2069}", "\\u{202e}gnp.exe\\u{2066}\\u{2069}"),
            ("\u{200b}\u{feff}\u{200f}\u{ad}", "\\u{200b}\\u{feff}\\u{200f}\\u{ad}"),
            ("\u{e0041}", "\\u{e0041}"),
        ] {
            assert_eq!(escaped(text), plain);
            let mut json = Vec::new();
            write_json(&mut json, &text).unwrap();
            let json = String::from_utf8(json).unwrap();
            assert!(!json.contains(is_control), "{json}");
            assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
        }
    }

    // Promise: a long text is cut at a character boundary.
    #[test]
    fn excerpts() {
        for (text, most, excerpt_of_it) in [("abc", 3, "abc"), ("abcd", 3, "abc…"), ("aжж", 2, "a…"), ("", 0, "")]
        {
            assert_eq!(excerpt(text, most), excerpt_of_it);
        }
    }

    proptest! {
        // Promise: an escaped text has no control character, escaping twice gives the same text, and JSON keeps the value.
        #[test]
        fn no_control_character_is_left(text: String, more in prop::collection::vec(any::<char>(), 0..20)) {
            let text = text + &String::from_iter(more);
            let plain = escaped(&text).into_owned();
            prop_assert!(!plain.contains(is_control));
            prop_assert_eq!(escaped(&plain), plain.as_str());
            let mut json = Vec::new();
            write_json(&mut json, &[&text]).unwrap();
            prop_assert!(!std::str::from_utf8(&json).unwrap().contains(is_control));
            prop_assert_eq!(serde_json::from_slice::<Vec<String>>(&json).unwrap(), [text]);
        }
    }
}
