//! A dry run: what the controller would write, as a table, in the log and as figures. Nothing is written.

use std::fmt;
use std::time::Duration;

use runtime::Metrics;
use thiserror::Error;
use tokio::sync::watch;

use super::plan::Action;

/// How many changes the log names.
const LOGGED: usize = 50;

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// What would be done.
    pub action: Action,
    /// The SPIFFE ID of an entry, the trust domain of a relationship.
    pub subject: String,
    /// The entry's ID.
    pub id: String,
    /// Why.
    pub reason: String,
}

/// What one loop would write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Preview {
    /// What is not as declared.
    pub rows: Vec<Row>,
    /// How many are declared.
    pub declared: usize,
}

/// Of what a preview is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Registration entries.
    Entries,
    /// Federation relationships.
    Federation,
}

impl Part {
    const fn name(self) -> &'static str {
        match self {
            Self::Entries => "entries",
            Self::Federation => "federation relationships",
        }
    }
}

/// Takes what the loops find; cheap to clone.
#[derive(Clone, Debug)]
pub struct DryRun {
    found: watch::Sender<Found>,
    metrics: Metrics,
}

#[derive(Clone, Debug, Default)]
struct Found {
    parts: Vec<(Part, Option<Preview>)>,
}

/// The loops did not find out in time.
#[derive(Debug, Error)]
#[error("not everything could be listed within {0:?}: see the log for what does not answer")]
pub struct Incomplete(Duration);

impl DryRun {
    /// Of these parts.
    #[must_use]
    pub fn new(parts: &[Part], metrics: Metrics) -> Self {
        let parts = parts.iter().map(|part| (*part, None)).collect();
        Self {
            found: watch::Sender::new(Found { parts }),
            metrics,
        }
    }

    /// What would be written now.
    pub(super) fn found(&self, part: Part, preview: Preview) {
        self.found.send_if_modified(|found| {
            let known = found.parts.iter_mut().find(|(known, _)| *known == part);
            let Some((_, known)) = known.filter(|(_, known)| known.as_ref() != Some(&preview))
            else {
                return false;
            };
            self.show(part, &preview);
            *known = Some(preview);
            true
        });
    }

    fn show(&self, part: Part, preview: &Preview) {
        for action in Action::ALL {
            let labels = [("of", part.name()), ("action", action.name())];
            let count = preview.count(action);
            #[expect(clippy::cast_precision_loss, reason = "Prometheus counts in doubles")]
            self.metrics
                .gauge("planned_changes", &labels)
                .set(count as f64);
        }
        tracing::info!(of = part.name(), "dry run: {}", preview.summary());
        for row in preview.rows.iter().take(LOGGED) {
            let action = row.action.name();
            tracing::info!(
                action,
                subject = row.subject,
                id = row.id,
                reason = row.reason,
                "dry run"
            );
        }
        if preview.rows.len() > LOGGED {
            tracing::info!("dry run: and {} more", preview.rows.len() - LOGGED);
        }
    }

    /// The whole report, once every loop has found out.
    ///
    /// # Errors
    /// When that takes longer than `most`.
    pub async fn report(&self, most: Duration) -> Result<String, Incomplete> {
        let mut found = self.found.subscribe();
        let whole =
            found.wait_for(|found| found.parts.iter().all(|(_, preview)| preview.is_some()));
        let whole = tokio::time::timeout(most, whole).await;
        let whole = whole.ok().and_then(Result::ok).ok_or(Incomplete(most))?;
        let tables = whole.parts.iter().map(|(part, preview)| {
            let preview = preview.clone().unwrap_or_default();
            format!("{}: {}\n{preview}", part.name(), preview.summary())
        });
        Ok(tables.collect::<Vec<_>>().join("\n"))
    }
}

impl Preview {
    fn count(&self, action: Action) -> usize {
        let of_action = self.rows.iter().filter(|row| row.action == action);
        of_action.count()
    }

    fn summary(&self) -> String {
        let [create, update, delete, keep] = Action::ALL.map(|action| self.count(action));
        format!(
            "{create} to create, {update} to update, {delete} to delete, {keep} to leave alone; {} declared",
            self.declared
        )
    }
}

/// The table; nothing when everything is as declared.
impl fmt::Display for Preview {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.rows.is_empty() {
            return Ok(());
        }
        let head = ["ACTION", "ID", "ENTRY", "REASON"];
        let cells = self.rows.iter().map(|row| {
            [
                row.action.name(),
                row.subject.as_str(),
                row.id.as_str(),
                row.reason.as_str(),
            ]
        });
        let lines: Vec<[&str; 4]> = std::iter::once(head).chain(cells).collect();
        let width = |column: usize| lines.iter().map(|line| line[column].len()).max();
        let widths = [0, 1, 2].map(|column| width(column).unwrap_or_default());
        for [action, subject, id, reason] in &lines {
            let [a, b, c] = widths;
            let line = format!("{action:a$}  {subject:b$}  {id:c$}  {reason}");
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(action: Action, subject: &str, id: &str, reason: &str) -> Row {
        Row {
            action,
            subject: subject.to_owned(),
            id: id.to_owned(),
            reason: reason.to_owned(),
        }
    }

    #[tokio::test]
    async fn the_report_waits_for_all_parts_and_says_what_each_would_do() {
        let metrics = Metrics::with_labels("test", &[]);
        let run = DryRun::new(&[Part::Entries, Part::Federation], metrics.clone());
        let rows = vec![
            row(Action::Create, "spiffe://a/web", "c.1", "declared by x"),
            row(Action::Delete, "spiffe://a/gone", "c.22", "its pod is gone"),
        ];
        run.found(Part::Entries, Preview { rows, declared: 7 });
        assert!(run.report(Duration::from_millis(1)).await.is_err());
        run.found(Part::Federation, Preview::default());
        let report = run.report(Duration::from_secs(1)).await.unwrap();
        let expected = "entries: 1 to create, 0 to update, 1 to delete, 0 to leave alone; 7 declared\n\
             ACTION  ID               ENTRY  REASON\n\
             create  spiffe://a/web   c.1    declared by x\n\
             delete  spiffe://a/gone  c.22   its pod is gone\n\n\
             federation relationships: 0 to create, 0 to update, 0 to delete, 0 to leave alone; 0 declared\n";
        assert_eq!(report, expected);
        let figures = metrics.render();
        assert!(
            figures.contains("test_planned_changes{of=\"entries\",action=\"delete\"} 1"),
            "{figures}"
        );
    }
}
