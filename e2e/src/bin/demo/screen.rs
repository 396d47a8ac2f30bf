//! What the demo shows, line by line.

use std::path::Path;

use anyhow::Error;
use tokio::time::Instant;

const STEPS: usize = 7;

/// The terminal, and how far the story has come.
pub(crate) struct Screen {
    started: Instant,
    step: usize,
    title: &'static str,
    expected: &'static str,
}

impl Screen {
    pub(crate) fn new() -> Self {
        Self {
            started: Instant::now(),
            step: 0,
            title: "preparing",
            expected: "built programs and a folder in /tmp",
        }
    }

    /// Begins the next step, which is to lead to what is expected.
    pub(crate) fn step(&mut self, title: &'static str, expected: &'static str) {
        self.step += 1;
        (self.title, self.expected) = (title, expected);
        let seconds = self.started.elapsed().as_secs_f32();
        println!("\n[{}/{STEPS}] {title}  ({seconds:.1} s)", self.step);
    }

    pub(crate) fn line(&self, text: impl AsRef<str>) {
        println!("      {}", text.as_ref());
    }

    /// Rows under a head, in columns as wide as they need to be.
    pub(crate) fn table<const N: usize>(&self, head: [&str; N], rows: &[[String; N]]) {
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
    pub(crate) fn failed(&self, error: &Error) {
        eprintln!("\nFAILED at step {}: {}", self.step, self.title);
        eprintln!("  expected: {}", self.expected);
        eprintln!(
            "  instead:  {}",
            format!("{error:#}").replace('\n', "\n            ")
        );
    }

    /// Says where the logs are.
    pub(crate) fn logs(&self, folder: &Path) {
        eprintln!("\nThe logs stay in {0}: {0}/*.log", folder.display());
    }
}
