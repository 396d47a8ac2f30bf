//! `make demo`: a trust domain, two real Envoys that talk mTLS, a stranger that gets nothing, and rotation under load.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for people"
)]

mod probe;
mod screen;
mod sidecar;
mod story;

use std::process::ExitCode;

use anyhow::Result;
use e2e::Domain;
use tokio::signal::unix::{SignalKind, signal};

use crate::screen::Screen;
use crate::story::Story;

#[tokio::main]
async fn main() -> ExitCode {
    let mut screen = Screen::new();
    match tell(&mut screen).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            screen.failed(&error);
            ExitCode::FAILURE
        }
    }
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
