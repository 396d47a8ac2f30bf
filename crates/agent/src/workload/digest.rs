//! SHA-256 of programs, each computed once.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::digest::{Context, SHA256};
use tokio::sync::OnceCell;
use tokio::task::spawn_blocking;

use super::process::{FileId, ProgramFile};

/// More programs than this on one node are not expected; then all are forgotten.
const MAX_KEPT: usize = 1024;

const CHUNK: usize = 64 << 10;

/// Digests by file, in lower-case hex. Callers that ask for the same file at once share one computation.
#[derive(Debug, Default)]
pub(super) struct Digests(Mutex<HashMap<FileId, Arc<OnceCell<String>>>>);

impl Digests {
    /// The digest of `program`, which must still be `expected`.
    pub(super) async fn of(&self, program: &ProgramFile, expected: FileId) -> io::Result<String> {
        let cell = self.cell(expected);
        let digest = cell.get_or_try_init(|| async {
            let file = program.open()?;
            spawn_blocking(move || sha256(file, expected))
                .await
                .map_err(io::Error::other)?
        });
        digest.await.cloned()
    }

    fn cell(&self, file: FileId) -> Arc<OnceCell<String>> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= MAX_KEPT && !kept.contains_key(&file) {
            kept.clear();
        }
        kept.entry(file).or_default().clone()
    }
}

fn sha256(mut file: File, expected: FileId) -> io::Result<String> {
    let mut context = Context::new(&SHA256);
    let mut chunk = vec![0; CHUNK];
    loop {
        let length = file.read(&mut chunk)?;
        if length == 0 {
            break;
        }
        context.update(&chunk[..length]);
    }
    if FileId::of(&file)? != expected {
        return Err(io::Error::other("the program changed while it was read"));
    }
    Ok(identity::hex(context.finish().as_ref()))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn the_digest_is_sha_256() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"abc").unwrap();
        std::io::Seek::rewind(&mut file).unwrap();
        let id = FileId::of(&file).unwrap();
        let digest = sha256(file, id).unwrap();
        assert_eq!(
            digest,
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn a_file_that_changes_has_no_digest() {
        let mut file = tempfile::tempfile().unwrap();
        let id = FileId::of(&file).unwrap();
        file.write_all(b"more").unwrap();
        assert!(sha256(file, id).is_err());
    }
}
