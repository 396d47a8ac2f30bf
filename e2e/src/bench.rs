//! The figures of `make bench`, each beside a limit measured in the same run by the same program.

pub mod agent;
mod bare;
pub mod controller;
pub mod entries;
pub mod floor;
pub mod h2;
pub mod idle;
pub mod issue;
pub mod streams;
pub mod usage;
pub mod webhook;

use std::fmt;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// One measured figure.
#[derive(Clone, Debug)]
pub struct Figure {
    /// The row of the benchmark plan: `a1`, `c`, …
    pub row: &'static str,
    /// What was measured, in words that stay.
    pub case: String,
    /// The figure.
    pub value: f64,
    /// Its unit; see [`Figure::ratio`].
    pub unit: &'static str,
    /// What the machine can do at best, in the same unit, where that was measured.
    pub limit: Option<f64>,
    /// Over how many samples.
    pub n: usize,
}

impl Figure {
    /// How near the figure comes to its limit: 1 is there. Rates end in `/s`; of all else, less is better.
    #[must_use]
    pub fn ratio(&self) -> Option<f64> {
        let limit = self.limit?;
        if self.unit.ends_with("/s") {
            Some(self.value / limit)
        } else {
            Some(limit / self.value)
        }
    }
}

/// The figures of one run.
#[derive(Clone, Debug, Default)]
pub struct Report(Vec<Figure>);

impl Report {
    /// Adds a figure.
    pub fn add(&mut self, figure: Figure) {
        self.0.push(figure);
    }

    /// Writes the figures as a JSON array of `{row, case, value, unit, limit, ratio, n, machine}`.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let machine = machine();
        let figures = self.0.iter().map(|figure| {
            json!({
                "row": figure.row,
                "case": figure.case,
                "value": figure.value,
                "unit": figure.unit,
                "limit": figure.limit,
                "ratio": figure.ratio(),
                "n": figure.n,
                "machine": machine,
            })
        });
        let text = serde_json::to_string_pretty(&figures.collect::<Vec<Value>>())?;
        std::fs::write(path, text + "\n").with_context(|| format!("write {}", path.display()))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.0.iter().map(|figure| figure.case.len()).max();
        let width = width.unwrap_or_default();
        writeln!(
            f,
            "{:<4} {:<width$} {:>10} {:>10} {:<8} {:>5} {:>6}",
            "row", "case", "value", "limit", "unit", "ratio", "n"
        )?;
        for figure in &self.0 {
            let Figure {
                row,
                case,
                value,
                unit,
                limit,
                n,
            } = figure;
            let limit = limit.map_or(String::new(), |limit| format!("{limit:.3}"));
            let ratio = figure
                .ratio()
                .map_or(String::new(), |ratio| format!("{ratio:.2}"));
            writeln!(
                f,
                "{row:<4} {case:<width$} {value:>10.3} {limit:>10} {unit:<8} {ratio:>5} {n:>6}"
            )?;
        }
        Ok(())
    }
}

/// The value below which `part` (0 to 1) of the samples lie.
#[must_use]
pub fn percentile(samples: &[f64], part: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an index"
    )]
    let index = (sorted.len() as f64 * part) as usize;
    sorted
        .get(index.min(sorted.len().saturating_sub(1)))
        .copied()
        .unwrap_or_default()
}

fn machine() -> String {
    let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map_or("unknown", |rest| rest.trim_start_matches([' ', '\t', ':']));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!("{model}, {cores} cores")
}
