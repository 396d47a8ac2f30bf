//! `make demo-k8s`: a real control plane, Signet from its chart, one annotation, and mTLS between two pods.

mod story;

use std::process::ExitCode;

use anyhow::{Result, bail};
use e2e::kubelet;
use e2e::screen::Screen;
use tokio::signal::unix::{SignalKind, signal};

use crate::story::Story;

const STEPS: usize = 7;

#[tokio::main]
async fn main() -> ExitCode {
    Screen::show(STEPS, tell).await
}

async fn tell(screen: &mut Screen) -> Result<()> {
    if let Some(why) = kubelet::unable() {
        bail!("the demo runs pods: {why}");
    }
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut story = Story::default();
    let told = tokio::select! {
        told = story.tell(screen) => told,
        _ = interrupt.recv() => Err(anyhow::anyhow!("interrupted")),
        _ = terminate.recv() => Err(anyhow::anyhow!("terminated")),
    };
    let ended = story.end().await;
    told.and(ended)
}
