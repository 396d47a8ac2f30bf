//! `make demo`: a trust domain, two real Envoys that talk mTLS, a stranger that gets nothing, and rotation under load.

mod probe;
mod sidecar;
mod story;

use std::process::ExitCode;

use anyhow::Result;
use e2e::Domain;
use e2e::screen::Screen;
use tokio::signal::unix::{SignalKind, signal};

use crate::story::Story;

const STEPS: usize = 7;

#[tokio::main]
async fn main() -> ExitCode {
    Screen::show(STEPS, tell).await
}

async fn tell(screen: &mut Screen) -> Result<()> {
    let stay = std::env::var_os("STAY").is_some_and(|value| value == "1");
    let mut story = Story::new(Domain::new(story::settings())?).await?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let told = tokio::select! {
        told = story.tell(screen) => told,
        _ = interrupt.recv() => Err(anyhow::anyhow!("interrupted")),
        _ = terminate.recv() => Err(anyhow::anyhow!("terminated")),
    };
    if let Err(error) = told {
        screen.logs(&story.keep_logs());
        story.end().await;
        return Err(error);
    }
    if stay {
        story.look_around(screen).await?;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    } else {
        screen.step("Clean up", "everything ends, the folder is gone");
    }
    story.clean_up(screen).await;
    Ok(())
}
