//! `signet server entry …`

mod change;
mod data;
mod find;
mod text;

use anyhow::Result;

/// Registration entries.
#[derive(clap::Subcommand, Debug)]
pub(crate) enum Command {
    /// Create entries
    Create(Box<change::Create>),
    /// Replace entries' fields
    Update(Box<change::Update>),
    /// Delete entries
    Delete(change::Delete),
    /// Show entries
    #[command(alias = "list")]
    Show(Box<find::Show>),
    /// Count entries
    Count(Box<find::Count>),
}

impl Command {
    pub(crate) async fn run(self) -> Result<()> {
        match self {
            Self::Create(create) => create.run().await,
            Self::Update(update) => update.run().await,
            Self::Delete(delete) => delete.run().await,
            Self::Show(show) => show.run().await,
            Self::Count(count) => count.run().await,
        }
    }
}

#[cfg(test)]
mod tests;
