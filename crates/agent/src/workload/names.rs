//! Names of users and groups, from the system's name service.

use std::collections::BTreeMap;
use std::time::Duration;

use nix::unistd::{Gid, Group, Uid, User};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::warn;

use super::process::Credentials;

/// A name service may ask the network; a workload is not kept waiting for longer than this.
const PATIENCE: Duration = Duration::from_secs(2);

/// The names that there are for some credentials.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// Of the user.
    pub(super) user: Option<String>,
    /// Of groups, by ID.
    pub(super) groups: BTreeMap<u32, String>,
}

/// Looks them up; `None` when the name service fails or is too slow.
pub(super) async fn look_up(credentials: &Credentials) -> Option<Names> {
    let uid = credentials.uid;
    let groups: Vec<u32> = [credentials.gid]
        .iter()
        .chain(&credentials.groups)
        .copied()
        .collect();
    let lookup = spawn_blocking(move || names(uid, &groups));
    match timeout(PATIENCE, lookup).await {
        Ok(Ok(Ok(names))) => Some(names),
        Ok(Ok(Err(error))) => {
            warn!(uid, %error, "the name service failed: user and group selectors are left out");
            None
        }
        Ok(Err(error)) => {
            warn!(uid, %error, "looking up names broke off: user and group selectors are left out");
            None
        }
        Err(_) => {
            warn!(
                uid,
                "the name service did not answer within {PATIENCE:?}: user and group selectors are left out"
            );
            None
        }
    }
}

fn names(uid: u32, groups: &[u32]) -> nix::Result<Names> {
    let user = User::from_uid(Uid::from_raw(uid))?.map(|user| user.name);
    let mut names = BTreeMap::new();
    for gid in groups {
        if let Some(group) = Group::from_gid(Gid::from_raw(*gid))? {
            names.insert(*gid, group.name);
        }
    }
    Ok(Names {
        user,
        groups: names,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn known_users_have_names_and_others_none() {
        let root = Credentials {
            uid: 0,
            gid: 0,
            groups: vec![0, 4_000_000],
        };
        let names = look_up(&root).await.unwrap();
        assert_eq!(names.user.as_deref(), Some("root"));
        assert_eq!(names.groups, BTreeMap::from([(0, "root".to_owned())]));
        let nobody = Credentials {
            uid: 4_000_000,
            gid: 4_000_000,
            groups: vec![],
        };
        assert_eq!(look_up(&nobody).await.unwrap().user, None);
    }
}
