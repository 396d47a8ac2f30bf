//! The `unix` attestor: by user, groups and program.

use std::collections::HashMap;
use std::fs;
use std::io::ErrorKind;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use identity::{Selector, Selectors};
use runtime::Peer;
use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep};
use tracing::warn;

use super::AttestError;
use super::digest::Digests;
use super::names::{NameService, Names};
use super::process::{Credentials, FileId, Process, Program, ProgramFile};
use crate::config::UnixAttestorConfig;

const KIND: &str = "unix";

/// For how long selectors made from the same facts are used again: a renamed user shows after this time.
const FRESH: Duration = Duration::from_secs(60);

/// A process on its way from one program to another (`exec`) is looked at again, after these pauses, in milliseconds.
const PAUSES_MS: [u64; 6] = [1, 2, 4, 8, 16, 32];

/// More kinds of callers than this on one node are not expected; then all are forgotten.
const MAX_KEPT: usize = 4096;

/// The attestor, with what it has found out lately.
#[derive(Debug)]
pub struct Unix {
    config: UnixAttestorConfig,
    unmapped: Unmapped,
    digests: Digests,
    names: NameService,
    kept: Mutex<HashMap<Facts, Kept>>,
}

/// All that a caller's selectors follow from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Facts {
    credentials: Credentials,
    program: Option<Program>,
}

#[derive(Clone, Debug)]
struct Kept {
    selectors: Arc<OnceCell<Selectors>>,
    since: Instant,
}

impl Unix {
    /// An attestor that knows nothing yet.
    #[must_use]
    pub fn new(config: UnixAttestorConfig) -> Self {
        Self {
            config,
            unmapped: Unmapped::read(),
            digests: Digests::default(),
            names: NameService::default(),
            kept: Mutex::default(),
        }
    }

    /// The selectors of the process behind `peer`.
    ///
    /// # Errors
    /// When it has ended, is another user than when it connected, or cannot be seen.
    pub async fn attest(&self, peer: &Peer) -> Result<Selectors, AttestError> {
        let process = Process::open(peer)?;
        let (facts, program) = self.facts(peer, &process).await?;
        let cell = self.kept(&facts);
        let made = cell.get_or_try_init(|| self.selectors(program.as_ref(), &facts));
        // What is incomplete is given out, but not kept.
        Ok(made.await.cloned().unwrap_or_else(|incomplete| incomplete))
    }

    /// What holds at one moment: of user and program, none is from before an `exec` and the other from after it.
    async fn facts(
        &self,
        peer: &Peer,
        process: &Process,
    ) -> Result<(Facts, Option<ProgramFile>), AttestError> {
        if !self.config.discover_workload_path {
            let facts = Facts {
                credentials: credentials(peer, process)?,
                program: None,
            };
            return Ok((facts, None));
        }
        let mut pauses = PAUSES_MS.into_iter().map(Duration::from_millis);
        loop {
            let found = process.program();
            let credentials = credentials(peer, process)?;
            let pause = pauses.next();
            match found {
                Ok((program, file)) if process.still_runs(&program) => {
                    let program = Some(program);
                    let facts = Facts {
                        credentials,
                        program,
                    };
                    return Ok((facts, Some(file)));
                }
                // Between two programs there is none.
                Err(error) if error.kind() != ErrorKind::NotFound || pause.is_none() => {
                    warn!(
                        caller = peer.pid(), uid = peer.uid(), %error,
                        "the caller's program cannot be seen: path and sha256 selectors are left out; \
                         an agent needs CAP_SYS_PTRACE to see other users' programs"
                    );
                    let facts = Facts {
                        credentials,
                        program: None,
                    };
                    return Ok((facts, None));
                }
                _ => {}
            }
            let pid = peer.pid().unwrap_or_default();
            sleep(pause.ok_or(AttestError::Restless { pid })?).await;
        }
    }

    fn kept(&self, facts: &Facts) -> Arc<OnceCell<Selectors>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if let Some(known) = kept.get(facts)
            && now.duration_since(known.since) < FRESH
        {
            return known.selectors.clone();
        }
        if kept.len() >= MAX_KEPT {
            kept.retain(|_, known| now.duration_since(known.since) < FRESH);
            if kept.len() >= MAX_KEPT {
                kept.clear();
            }
        }
        let new = Kept {
            selectors: Arc::default(),
            since: now,
        };
        kept.insert(facts.clone(), new.clone());
        new.selectors
    }

    /// `Err` when something that could be known is missing from them.
    async fn selectors(
        &self,
        file: Option<&ProgramFile>,
        facts: &Facts,
    ) -> Result<Selectors, Selectors> {
        let names = self.names.look_up(&facts.credentials).await;
        let mut complete = names.is_some();
        let names = names.unwrap_or_default();
        let mut values = credential_values(&facts.credentials, &names, self.unmapped);
        if let (Some(program), Some(file)) = (&facts.program, file) {
            match program.path.to_str() {
                Some(path) => values.push(format!("path:{path}")),
                None => warn!(path = ?program.path, "the caller's path is not UTF-8: left out"),
            }
            match self.digest(file, program.file).await {
                Some(Ok(digest)) => values.push(format!("sha256:{digest}")),
                Some(Err(error)) => {
                    warn!(path = ?program.path, %error, "the caller's program cannot be hashed: sha256 is left out");
                    complete = false;
                }
                None => {}
            }
        }
        let selectors = values.iter().filter_map(|value| selector(value)).collect();
        if complete {
            Ok(selectors)
        } else {
            Err(selectors)
        }
    }

    /// `None` when the program is not to be hashed.
    async fn digest(&self, program: &ProgramFile, file: FileId) -> Option<std::io::Result<String>> {
        match self.config.workload_size_limit {
            Some(0) => None,
            Some(limit) if file.size > limit => {
                warn!(
                    size = file.size,
                    limit,
                    "the caller's program is larger than workload_size_limit: sha256 is left out"
                );
                None
            }
            _ => Some(self.digests.of(program, file).await),
        }
    }
}

/// Whom the process acts as, which must be whom it acted as when it connected.
fn credentials(peer: &Peer, process: &Process) -> Result<Credentials, AttestError> {
    let credentials = process.credentials()?;
    if (credentials.uid, credentials.gid) == (peer.uid(), peer.gid()) {
        return Ok(credentials);
    }
    Err(AttestError::Changed {
        pid: peer.pid().unwrap_or_default(),
        was_uid: peer.uid(),
        was_gid: peer.gid(),
        uid: credentials.uid,
        gid: credentials.gid,
    })
}

fn credential_values(credentials: &Credentials, names: &Names, unmapped: Unmapped) -> Vec<String> {
    let mut values = Vec::new();
    if Some(credentials.uid) != unmapped.uid {
        values.push(format!("uid:{}", credentials.uid));
        values.extend(names.user.as_ref().map(|name| format!("user:{name}")));
    }
    let mut group = |id: &str, name: &str, gid: &u32| {
        if Some(*gid) != unmapped.gid {
            values.push(format!("{id}:{gid}"));
            values.extend(names.groups.get(gid).map(|group| format!("{name}:{group}")));
        }
    };
    group("gid", "group", &credentials.gid);
    for gid in &credentials.groups {
        group("supplementary_gid", "supplementary_group", gid);
    }
    values
}

fn selector(value: &str) -> Option<Selector> {
    Selector::new(KIND, value)
        .inspect_err(
            |error| warn!(?value, %error, "a fact about the caller is no selector: left out"),
        )
        .ok()
}

/// The IDs that stand for every user or group the agent's user namespace has no number for: facts about nobody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Unmapped {
    uid: Option<u32>,
    gid: Option<u32>,
}

impl Unmapped {
    fn read() -> Self {
        let overflow = |map: &str, overflow: &str| {
            let all_mapped = fs::read_to_string(map).is_ok_and(|map| maps_all(&map));
            let id = fs::read_to_string(overflow).ok()?.trim().parse().ok()?;
            (!all_mapped).then_some(id)
        };
        Self {
            uid: overflow("/proc/self/uid_map", "/proc/sys/kernel/overflowuid"),
            gid: overflow("/proc/self/gid_map", "/proc/sys/kernel/overflowgid"),
        }
    }
}

/// Whether a `uid_map` has all IDs: its ranges never overlap, so their lengths add up to that.
fn maps_all(map: &str) -> bool {
    let length = |line: &str| line.split_ascii_whitespace().nth(2)?.parse::<u64>().ok();
    map.lines().filter_map(length).sum::<u64>() >= u64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials() -> Credentials {
        Credentials {
            uid: 1000,
            gid: 100,
            groups: vec![100, 4, 65_534],
        }
    }

    fn names() -> Names {
        Names {
            user: Some("web".to_owned()),
            groups: [(100, "users".to_owned()), (4, "adm".to_owned())].into(),
        }
    }

    #[test]
    fn credentials_become_selectors() {
        assert_eq!(
            credential_values(&credentials(), &names(), Unmapped::default()),
            [
                "uid:1000",
                "user:web",
                "gid:100",
                "group:users",
                "supplementary_gid:100",
                "supplementary_group:users",
                "supplementary_gid:4",
                "supplementary_group:adm",
                "supplementary_gid:65534",
            ]
        );
    }

    #[test]
    fn as_05_an_unmapped_user_is_nobody_in_particular() {
        let unmapped = Unmapped {
            uid: Some(1000),
            gid: Some(65_534),
        };
        let values = credential_values(&credentials(), &names(), unmapped);
        assert!(
            !values
                .iter()
                .any(|value| value.starts_with("u") || value.ends_with("65534")),
            "{values:?}"
        );
    }

    #[test]
    fn as_05_a_whole_user_namespace_maps_all() {
        assert!(maps_all("         0          0 4294967295\n"));
        assert!(!maps_all("         0     100000      65536\n"));
        assert!(!maps_all(""));
    }

    /// Hostile names of programs are left out, not turned into other selectors.
    #[test]
    fn as_04_a_path_with_a_line_end_is_no_selector() {
        assert_eq!(selector("path:/tmp/a\nuid:0"), None);
        assert!(selector("path:/tmp/a b:c").is_some());
    }
}
