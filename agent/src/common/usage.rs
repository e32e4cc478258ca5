//! A command line that is wrong: what is said about it never repeats what should not have been there.
//!
//! What stands in a wrong place may be a password. A value of a known option is repeated, for none of them takes a secret.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::common::exit::Exit;
use crate::common::plain_text::escaped;

/// Prints what is wrong with the command line of this process, or the help that was asked for.
pub fn report(error: clap::Error) -> Exit {
    let exit = if error.use_stderr() { Exit::Usage } else { Exit::Done };
    let _ = without_secrets(error, std::env::args_os()).print();
    exit
}

/// The error without what may be a secret, and with its position in `arguments` instead.
fn without_secrets(mut error: clap::Error, arguments: impl Iterator<Item = OsString>) -> clap::Error {
    let kind = match error.kind() {
        ErrorKind::UnknownArgument => Some(ContextKind::InvalidArg),
        ErrorKind::InvalidSubcommand => Some(ContextKind::InvalidSubcommand),
        ErrorKind::TooManyValues => Some(ContextKind::InvalidValue),
        _ => None,
    };
    if let Some(kind) = kind {
        // It repeats the argument as well.
        error.remove(ContextKind::Suggested);
        if let Some(ContextValue::String(secret)) = error.remove(kind) {
            let tip = format!("{}it is not repeated here, for it may be a secret", position(&secret, arguments));
            error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
        }
    }
    let odd: Vec<_> = error.context().filter_map(|(kind, value)| Some((kind, plain(value)?))).collect();
    for (kind, value) in odd {
        error.insert(kind, value);
    }
    error
}

/// Where the argument stands, if it is found: that with which a longer one begins (`--option=value`) counts, too.
fn position(argument: &str, arguments: impl Iterator<Item = OsString>) -> String {
    let arguments: Vec<String> = arguments.map(|argument| argument.to_string_lossy().into_owned()).collect();
    let is_it = |other: &String| other == argument;
    let begins = |other: &String| other.strip_prefix(argument).is_some_and(|rest| rest.starts_with('='));
    let ends = |other: &String| other.strip_suffix(argument).is_some_and(|rest| rest.ends_with('='));
    let found = [&is_it as &dyn Fn(&String) -> bool, &begins, &ends]
        .into_iter()
        .find_map(|is_it| arguments.iter().skip(1).position(is_it));
    found.map_or(String::new(), |index| format!("it is argument {} of the command line; ", index + 1))
}

/// The value without control characters, if it has any.
fn plain(value: &ContextValue) -> Option<ContextValue> {
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

    // Promise: what is not expected is named by its place alone; what is known keeps its name, its value and its help.
    #[test]
    fn what_is_not_expected_is_not_repeated() {
        for (arguments, said) in [
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
            assert!(text.contains(said) && text.starts_with("error: "), "{arguments:?}: {text}");
            assert!(!text.contains("hush"), "{arguments:?}: {text}");
        }
    }
}
