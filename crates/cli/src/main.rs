//! The one binary, `signet`: arguments in, text out.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line speaks through both"
)]

mod arguments;
mod client;
mod commands;
mod environment;
mod files;
mod output;
mod program;
mod socket;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use crate::commands::Signet;

fn main() -> ExitCode {
    let arguments = arguments::normalize(&Signet::command(), std::env::args_os());
    let outcome = match Signet::try_parse_from(arguments) {
        Ok(command) => command.run(),
        Err(usage) => {
            let _ = usage.print();
            return ExitCode::from(u8::from(usage.use_stderr()));
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error: {}", program::told(&error));
            ExitCode::FAILURE
        }
    }
}
