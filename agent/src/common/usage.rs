//! Reports an invalid command line without repeating unexpected arguments.
//!
//! An unexpected argument may be a password. The value of a known option is shown, because no option takes a secret.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::common::exit::Exit;
use crate::common::plain_text::escaped;

/// Prints the error in the command line of this process, or the requested help; returns the exit code.
pub fn report(error: clap::Error) -> Exit {
    let exit = if error.use_stderr() { Exit::Usage } else { Exit::Done };
    let _ = without_secrets(error, std::env::args_os()).print();
    exit
}

/// Returns the error with the position in `arguments` instead of an argument that may be a secret.
fn without_secrets(mut error: clap::Error, arguments: impl Iterator<Item = OsString>) -> clap::Error {
    let kind = match error.kind() {
        ErrorKind::UnknownArgument => Some(ContextKind::InvalidArg),
        ErrorKind::InvalidSubcommand => Some(ContextKind::InvalidSubcommand),
        ErrorKind::TooManyValues => Some(ContextKind::InvalidValue),
        _ => None,
    };
    if let Some(kind) = kind {
        // The suggestion repeats the argument, too.
        error.remove(ContextKind::Suggested);
        if let Some(ContextValue::String(secret)) = error.remove(kind) {
            let tip = format!("{}it is not shown, because it may be a secret", position(&secret, arguments));
            error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
        }
    }
    let escaped: Vec<_> =
        error.context().filter_map(|(kind, value)| Some((kind, without_control_characters(value)?))).collect();
    for (kind, value) in escaped {
        error.insert(kind, value);
    }
    error
}

/// Returns the argument's position as text, empty if it is not found; an argument that is one side of `--option=value` counts, too.
fn position(argument: &str, arguments: impl Iterator<Item = OsString>) -> String {
    let arguments: Vec<String> = arguments.map(|argument| argument.to_string_lossy().into_owned()).collect();
    let equals = |other: &String| other == argument;
    let begins = |other: &String| other.strip_prefix(argument).is_some_and(|rest| rest.starts_with('='));
    let ends = |other: &String| other.strip_suffix(argument).is_some_and(|rest| rest.ends_with('='));
    let found = [&equals as &dyn Fn(&String) -> bool, &begins, &ends]
        .into_iter()
        .find_map(|matches| arguments.iter().skip(1).position(matches));
    found.map_or(String::new(), |index| format!("it is argument {} of the command line; ", index + 1))
}

/// Returns the value with its control characters escaped; `None` if it has none.
fn without_control_characters(value: &ContextValue) -> Option<ContextValue> {
    match value {
        ContextValue::String(text) if escaped(text) != text.as_str() => {
            Some(ContextValue::String(escaped(text).into_owned()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use clap::{Arg, ArgAction, Command};

    use super::*;

    fn command() -> Command {
        let number = Arg::new("number").long("number").value_parser(clap::value_parser!(u8));
        let flag = Arg::new("flag").long("flag").action(ArgAction::SetTrue);
        Command::new("program")
            .arg(flag)
            .subcommand_required(true)
            .subcommand(Command::new("boot").arg(number).arg(Arg::new("file").long("password-file")))
    }

    // Promise: an unexpected argument is named only by its position; a known option keeps its name, its value and its help.
    #[test]
    fn unexpected_arguments_are_not_shown() {
        for (arguments, part) in [
            ("boot hush", "argument 2 "),
            ("boot --number 5 hush", "argument 4 "),
            ("boot --hush", "argument 2 "),
            ("boot --hush=hush", "argument 2 "),
            ("boot --password hush", "argument 2 "),
            ("boot --password=hush", "argument 2 "),
            ("boot -qhush", "may be a secret"),
            ("hush", "argument 1 "),
            ("hush boot", "argument 1 "),
            ("--flag=hush boot", "argument 1 "),
            ("boot -- hush", "argument 3 "),
            ("boot --number x", "'x' for '--number <number>'"),
            ("boot --number 300", "'300' for"),
            ("boot --number \u{1b}[2J\n", "'\\u{1b}[2J' for"),
            ("", "requires a subcommand"),
        ] {
            let arguments: Vec<OsString> =
                ["program"].into_iter().chain(arguments.split(' ').filter(|a| !a.is_empty())).map(Into::into).collect();
            let error = command().try_get_matches_from(&arguments).unwrap_err();
            let text = without_secrets(error, arguments.clone().into_iter()).render().to_string();
            let text = text.replace("\\u{a}", "");
            assert!(text.contains(part) && text.starts_with("error: "), "{arguments:?}: {text}");
            assert!(!text.contains("hush"), "{arguments:?}: {text}");
        }
    }
}
