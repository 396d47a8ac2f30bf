//! What clients send on a stream that stays open: waited for, but not for ever.

use std::time::Duration;

use futures_util::{Stream, StreamExt as _};
use runtime::Shutdown;
use tonic::Status;

use crate::rpc::RpcError;

/// The longest wait for a message. Agents send theirs without a break; who stops in between holds up the server's end.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// The messages of one call.
pub(crate) struct Incoming<S> {
    messages: S,
    shutdown: Shutdown,
}

impl<S, T> Incoming<S>
where
    S: Stream<Item = Result<T, Status>> + Unpin,
{
    pub(crate) const fn new(messages: S, shutdown: Shutdown) -> Self {
        Self { messages, shutdown }
    }

    /// The next message; none after the last.
    ///
    /// # Errors
    /// When the call broke off, the message does not come in time, or the server ends before it came.
    pub(crate) async fn message(&mut self) -> Result<Option<T>, Status> {
        let too_late = || RpcError::Unavailable(format!("no message came within {LONGEST_WAIT:?}"));
        tokio::select! {
            biased;
            message = self.messages.next() => message.transpose(),
            () = self.shutdown.cancelled() => {
                Err(RpcError::Unavailable("the server is ending; try again".into()).into())
            }
            () = tokio::time::sleep(LONGEST_WAIT) => Err(too_late().into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use runtime::Supervisor;
    use tokio::time::Instant;
    use tonic::Code;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_sends_nothing_is_sent_away() {
        let (_supervisor, tasks) = Supervisor::new();
        let silent = stream::pending::<Result<u8, Status>>();
        let mut incoming = Incoming::new(silent, tasks.shutdown());
        let started = Instant::now();
        let status = incoming.message().await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable);
        assert_eq!(started.elapsed(), LONGEST_WAIT);
    }

    #[tokio::test(start_paused = true)]
    async fn the_servers_end_is_not_held_up() {
        let (_supervisor, tasks) = Supervisor::new();
        let silent = stream::pending::<Result<u8, Status>>();
        let mut incoming = Incoming::new(silent, tasks.shutdown());
        tasks.stop();
        let started = Instant::now();
        let status = incoming.message().await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable);
        assert_eq!(started.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_come_is_taken_in_order() {
        let (_supervisor, tasks) = Supervisor::new();
        tasks.stop();
        let sent = stream::iter([Ok(1_u8), Err(Status::aborted("x"))]);
        let mut incoming = Incoming::new(sent, tasks.shutdown());
        assert_eq!(incoming.message().await.unwrap(), Some(1));
        assert_eq!(incoming.message().await.unwrap_err().code(), Code::Aborted);
        assert_eq!(incoming.message().await.unwrap(), None);
    }
}
