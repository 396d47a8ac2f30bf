//! `api watch`

use std::time::Duration;

use anyhow::{Context, Result};
use proto::workload::X509svidRequest;
use tokio::time::Instant;
use tonic::{Code, Status, Streaming};

use super::{client, request, x509};
use crate::client::refused;
use crate::output::{Report, say};
use crate::socket::AgentSocket;

const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// `api watch`
#[derive(clap::Args, Debug)]
pub(crate) struct Watch {
    #[command(flatten)]
    socket: AgentSocket,
}

impl Watch {
    /// Prints updates until it is interrupted; comes back to an agent that was away or had no identity for us.
    pub(super) async fn run(self) -> Result<()> {
        let mut since = Instant::now();
        let mut pause = FIRST_PAUSE;
        loop {
            let before = since;
            match self.follow(&mut since).await {
                Ok(()) => {}
                // What the agent will never accept needs no second try.
                Err(Ended::Refused(status)) if status.code() == Code::InvalidArgument => {
                    return Err(refused(&status));
                }
                Err(Ended::Refused(status)) => complain(&refused(&status))?,
                Err(Ended::Broken(error)) => complain(&error)?,
            }
            if since != before {
                pause = FIRST_PAUSE;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Prints what one stream brings; `since` becomes the time of the last update.
    async fn follow(&self, since: &mut Instant) -> Result<(), Ended> {
        let mut client = client(&self.socket).await?;
        let stream = client.fetch_x509svid(request(X509svidRequest {})).await;
        let mut stream: Streaming<_> = stream?.into_inner();
        while let Some(answer) = stream.message().await? {
            let received = x509::read(&answer).context("the agent's answer is malformed")?;
            let now = Instant::now();
            say(&received.told(now - *since).into())?;
            *since = now;
        }
        Ok(())
    }
}

enum Ended {
    Refused(Status),
    Broken(anyhow::Error),
}

impl From<Status> for Ended {
    fn from(status: Status) -> Self {
        Self::Refused(status)
    }
}

impl From<anyhow::Error> for Ended {
    fn from(error: anyhow::Error) -> Self {
        Self::Broken(error)
    }
}

fn complain(error: &anyhow::Error) -> Result<()> {
    say(&Report {
        out: String::new(),
        err: format!("{error:#}\n"),
    })
}
