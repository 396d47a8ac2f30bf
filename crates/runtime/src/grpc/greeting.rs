use tokio::sync::oneshot;

use crate::listen::{Tap, Tapped};

/// The bytes of HTTP/2's preface (RFC 9113, section 3.4).
const PREFACE_LENGTH: usize = 24;

/// Tells when as many bytes have come as a client's first words have.
pub(super) struct Greeting {
    missing: usize,
    came: Option<oneshot::Sender<()>>,
}

/// The stream, and what is ready once the preface has come, or the stream is dropped.
pub(super) fn greeted<S>(stream: S) -> (Tapped<S, Greeting>, oneshot::Receiver<()>) {
    let (came, greeting) = oneshot::channel();
    let tap = Greeting {
        missing: PREFACE_LENGTH,
        came: Some(came),
    };
    (Tapped::new(stream, tap), greeting)
}

impl Tap for Greeting {
    fn read(&mut self, bytes: &mut [u8]) {
        self.missing = self.missing.saturating_sub(bytes.len());
        if self.missing == 0
            && let Some(came) = self.came.take()
        {
            let _ = came.send(());
        }
    }
}
