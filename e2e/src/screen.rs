//! What a demo shows, line by line.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "it is for people"
)]

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Error, Result};
use tokio::time::Instant;

/// The terminal, and how far the story has come.
#[derive(Debug)]
pub struct Screen {
    steps: usize,
    started: Instant,
    step: usize,
    title: &'static str,
    expected: &'static str,
}

impl Screen {
    /// For a story of so many steps.
    #[must_use]
    pub fn new(steps: usize) -> Self {
        Self {
            steps,
            started: Instant::now(),
            step: 0,
            title: "preparing",
            expected: "built programs and a folder in /tmp",
        }
    }

    /// Shows a story of so many steps, and what went wrong in it.
    pub async fn show(steps: usize, tell: impl AsyncFnOnce(&mut Self) -> Result<()>) -> ExitCode {
        let mut screen = Self::new(steps);
        match tell(&mut screen).await {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                screen.failed(&error);
                ExitCode::FAILURE
            }
        }
    }

    /// Begins the next step, which is to lead to what is expected.
    pub fn step(&mut self, title: &'static str, expected: &'static str) {
        self.step += 1;
        (self.title, self.expected) = (title, expected);
        let seconds = self.started.elapsed().as_secs_f32();
        println!("\n[{}/{}] {title}  ({seconds:.1} s)", self.step, self.steps);
    }

    /// One line of the step.
    pub fn line(&self, text: impl AsRef<str>) {
        println!("      {}", text.as_ref());
    }

    /// Rows under a head, in columns as wide as they need to be.
    pub fn table<const N: usize>(&self, head: [&str; N], rows: &[[String; N]]) {
        let width = |column: usize| {
            let cells = rows.iter().map(|row| row[column].chars().count());
            cells.max().unwrap_or(0).max(head[column].len())
        };
        let line = |cells: [&str; N]| {
            let padded = cells
                .iter()
                .enumerate()
                .map(|(column, cell)| format!("{cell:<0$}", width(column)));
            self.line(padded.collect::<Vec<_>>().join("  ").trim_end());
        };
        line(head);
        for row in rows {
            line(row.each_ref().map(String::as_str));
        }
    }

    /// Says what went wrong, and what should have been.
    pub fn failed(&self, error: &Error) {
        eprintln!("\nFAILED at step {}: {}", self.step, self.title);
        eprintln!("  expected: {}", self.expected);
        eprintln!(
            "  instead:  {}",
            format!("{error:#}").replace('\n', "\n            ")
        );
    }

    /// Says where the logs are.
    pub fn logs(&self, folder: &Path) {
        eprintln!("\nThe logs stay in {0}: {0}/*.log", folder.display());
    }
}
