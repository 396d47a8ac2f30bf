//! Arguments as people write them for SPIRE, made those that clap knows.
//!
//! Flags may have one dash or two (`-socketPath`, `--socketPath`), any case, and dashes between words (`--socket-path`); booleans may have a
//! value (`-admin=false`), as in Go. Called as `spire-server` or `spire-agent`, the binary behaves as that program.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use clap::{ArgAction, Command};

/// The arguments, program name first, in the form that `tree` takes.
pub(crate) fn normalize(
    tree: &Command,
    arguments: impl IntoIterator<Item = OsString>,
) -> Vec<OsString> {
    let flags = flags(tree);
    let mut arguments = arguments.into_iter();
    let program = arguments.next().unwrap_or_else(|| tree.get_name().into());
    let mut normalized = vec![OsString::from(tree.get_name())];
    normalized.extend(implied(&program));
    while let Some(argument) = arguments.next() {
        match argument.to_str() {
            Some("--") => {
                normalized.push(argument);
                break;
            }
            Some(text) => match Normalized::of(text, &flags) {
                Normalized::Flag(flag) => normalized.push(flag.into()),
                Normalized::FlagBeforeValue(flag) => {
                    normalized.push(flag.into());
                    normalized.extend(arguments.next());
                }
                Normalized::Nothing => {}
                Normalized::Other => normalized.push(argument),
            },
            None => normalized.push(argument),
        }
    }
    normalized.extend(arguments);
    normalized
}

/// The subcommand that a program's name stands for.
fn implied(program: &OsString) -> Option<OsString> {
    match Path::new(program).file_name()?.to_str()? {
        "spire-server" => Some("server".into()),
        "spire-agent" => Some("agent".into()),
        _ => None,
    }
}

enum Normalized {
    Flag(String),
    /// The next argument is its value, whatever it looks like.
    FlagBeforeValue(String),
    /// A boolean set to false: as if it were not there.
    Nothing,
    Other,
}

impl Normalized {
    fn of(argument: &str, flags: &BTreeMap<String, Flag>) -> Self {
        let Some(dashed) = argument
            .strip_prefix("--")
            .or_else(|| argument.strip_prefix('-'))
        else {
            return Self::Other;
        };
        let (name, value) = match dashed.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (dashed, None),
        };
        let Some(flag) = flags.get(&plain(name)) else {
            let is_word = name.len() > 1 && name.starts_with(|c: char| c.is_ascii_alphabetic());
            // Named whole in clap's complaint.
            return if is_word {
                Self::Flag(format!("--{dashed}"))
            } else {
                Self::Other
            };
        };
        let long = &flag.long;
        match (flag.takes_value, value) {
            (true, Some(value)) => Self::Flag(format!("--{long}={value}")),
            (true, None) => Self::FlagBeforeValue(format!("--{long}")),
            (false, None) => Self::Flag(format!("--{long}")),
            (false, Some(value)) => match value {
                "1" | "t" | "T" | "true" | "True" | "TRUE" => Self::Flag(format!("--{long}")),
                "0" | "f" | "F" | "false" | "False" | "FALSE" => Self::Nothing,
                _ => Self::Flag(format!("--{long}={value}")),
            },
        }
    }
}

struct Flag {
    long: String,
    takes_value: bool,
}

/// Every long flag of the tree, by its plain name.
fn flags(tree: &Command) -> BTreeMap<String, Flag> {
    let own = tree.get_arguments().filter_map(|argument| {
        let long = argument.get_long()?.to_owned();
        let takes_value = matches!(argument.get_action(), ArgAction::Set | ArgAction::Append);
        Some((plain(&long), Flag { long, takes_value }))
    });
    let below = tree.get_subcommands().flat_map(flags);
    let help = Flag {
        long: "help".to_owned(),
        takes_value: false,
    };
    own.chain(below)
        .chain([("help".to_owned(), help)])
        .collect()
}

fn plain(name: &str) -> String {
    name.replace('-', "").to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;
    use crate::commands::Signet;

    fn check(given: &str, expected: &str) {
        let given = given.split(' ').map(OsString::from);
        let normalized = normalize(&Signet::command(), given);
        let normalized: Vec<_> = normalized
            .iter()
            .map(|part| part.to_string_lossy())
            .collect();
        assert_eq!(normalized.join(" "), expected);
    }

    #[test]
    fn the_tree_is_sound() {
        Signet::command().debug_assert();
    }

    #[test]
    fn flags_mean_the_same_in_every_command() {
        fn walk(tree: &Command, seen: &mut BTreeMap<String, (String, bool)>) {
            for (plain, flag) in flags(tree) {
                let this = (flag.long, flag.takes_value);
                let first = seen.entry(plain).or_insert_with(|| this.clone());
                assert_eq!(*first, this, "one spelling and one kind per flag");
            }
            tree.get_subcommands().for_each(|below| walk(below, seen));
        }
        walk(&Signet::command(), &mut BTreeMap::new());
    }

    #[test]
    fn go_flags_become_clap_flags() {
        check(
            "signet server run -config /x",
            "signet server run --config /x",
        );
        check(
            "signet server run -config=/x",
            "signet server run --config=/x",
        );
        check(
            "signet server run --socket-path /x",
            "signet server run --socketPath /x",
        );
        check(
            "signet server run -SOCKETPATH /x",
            "signet server run --socketPath /x",
        );
        check(
            "signet server run -expandEnv=true",
            "signet server run --expandEnv",
        );
        check("signet server run -expandEnv=false", "signet server run");
        check(
            "signet server run -expandEnv=maybe",
            "signet server run --expandEnv=maybe",
        );
        check(
            "signet server run -config -config",
            "signet server run --config -config",
        );
        check("signet server run -h", "signet server run -h");
        check("signet server run -help", "signet server run --help");
        check(
            "signet server run -unknown 1",
            "signet server run --unknown 1",
        );
        check("signet - -- -config", "signet - -- -config");
    }

    #[test]
    fn the_name_it_is_called_by_counts() {
        check("/opt/spire/bin/spire-server run", "signet server run");
        check(
            "spire-agent validate -config x",
            "signet agent validate --config x",
        );
        check("./signet agent run", "signet agent run");
        check("signet-1.0 agent run", "signet agent run");
    }

    #[test]
    fn what_spires_charts_call_parses() {
        for line in [
            "spire-server run -expandEnv -config /run/spire/config/server.conf",
            "spire-agent run -config /opt/spire/conf/agent/agent.conf",
            "spire-agent run -joinToken abc -serverAddress localhost -serverPort 8081 -trustDomain example.org",
            "spire-server healthcheck -socketPath=/tmp/x.sock -shallow -verbose",
            "spire-agent healthcheck -socketPath /tmp/x.sock",
            "spire-server validate -config x -expandEnv",
        ] {
            let arguments = normalize(&Signet::command(), line.split(' ').map(OsString::from));
            if let Err(error) = Signet::try_parse_from(arguments) {
                panic!("{line}: {error}");
            }
        }
    }
}
