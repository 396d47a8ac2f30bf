//! SELinux labels of the agent's folder, so that containers may use the socket in it.
//!
//! A bind mount shows the folder's own label, and what is made in a folder takes its type over. So the folder is
//! labelled, and what is in it already.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use rustix::fs::{XattrFlags, lgetxattr, lsetxattr};
use rustix::io::Errno;

/// The attribute that holds a file's context.
const ATTRIBUTE: &str = "security.selinux";
/// The longest context that is read, as the kernel's own limit for a name in `/proc`.
const MAX_CONTEXT: usize = 4096;

/// Why a folder cannot be labelled.
#[derive(Debug, thiserror::Error)]
pub enum LabelError {
    /// Its file system has no labels.
    #[error(
        "the file system of {0} keeps no SELinux labels; use one that does, such as tmpfs, ext4 or xfs, or leave \
         --selinux-context out"
    )]
    Unsupported(PathBuf),
    /// Not a context of the policy.
    #[error("SELinux on this node has no context {context}; see --selinux-context")]
    Unknown {
        /// The context.
        context: String,
    },
    /// Not allowed.
    #[error(
        "labelling {0} is not allowed; it takes CAP_SYS_ADMIN, and a policy that lets the driver relabel"
    )]
    Denied(PathBuf),
    /// The system refuses.
    #[error("cannot label {path}: {error}")]
    System {
        /// What was to be labelled.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
}

/// How files are to be labelled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Label {
    /// With a whole context: `system_u:object_r:container_file_t:s0`.
    Context(String),
    /// With another type in the context they have: `container_file_t`, as `chcon -t` does.
    Type(String),
}

impl FromStr for Label {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let legal = |one: char| one.is_ascii_alphanumeric() || "_-.".contains(one);
        // Behind the type stands a level, which has colons and commas of its own.
        let parts: Vec<&str> = text.splitn(4, ':').collect();
        let names = parts.iter().take(3);
        let named = names
            .clone()
            .all(|name| !name.is_empty() && name.chars().all(legal));
        let level = parts.get(3).copied().unwrap_or_default();
        let level = level.chars().all(|one| legal(one) || ":,".contains(one));
        match parts.len() {
            1 if named => Ok(Self::Type(text.to_owned())),
            3 | 4 if named && level => Ok(Self::Context(text.to_owned())),
            _ => Err(
                "give a type such as container_file_t, or a whole context such as \
                      system_u:object_r:container_file_t:s0",
            ),
        }
    }
}

impl Label {
    /// Labels what `link` leads to, a folder, and what is in it. Errors name it `path`.
    pub(super) fn put(&self, link: &Path, path: &Path) -> Result<(), LabelError> {
        // The link leads through /proc to the folder itself; with a dot behind, it is not the link that is labelled.
        let folder = link.join(".");
        self.put_one(&folder, path)?;
        let failed = |error| LabelError::System {
            path: path.to_owned(),
            error,
        };
        for entry in std::fs::read_dir(&folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            match self.put_one(&entry.path(), &path.join(entry.file_name())) {
                // The agent was faster.
                Err(LabelError::System { error, .. })
                    if error.kind() == std::io::ErrorKind::NotFound => {}
                put => put?,
            }
        }
        Ok(())
    }

    fn put_one(&self, file: &Path, path: &Path) -> Result<(), LabelError> {
        let now = read(file).map_err(|error| self.explain(error, path))?;
        let wanted = self.in_place_of(now.as_deref());
        if now.as_ref() == Some(&wanted) {
            return Ok(());
        }
        // With its end, as the kernel and its tools write it.
        let value = format!("{wanted}\0");
        lsetxattr(file, ATTRIBUTE, value.as_bytes(), XattrFlags::empty())
            .map_err(|error| self.explain(error, path))?;
        tracing::info!(path = %path.display(), context = wanted, "labelled for SELinux");
        Ok(())
    }

    /// The context to be in place of `now`.
    fn in_place_of(&self, now: Option<&str>) -> String {
        let kind = match self {
            Self::Context(context) => return context.clone(),
            Self::Type(kind) => kind,
        };
        let mut parts = now
            .unwrap_or("system_u:object_r:unlabeled_t:s0")
            .splitn(4, ':');
        let (user, role) = (
            parts.next().unwrap_or("system_u"),
            parts.next().unwrap_or("object_r"),
        );
        match parts.nth(1) {
            Some(level) => format!("{user}:{role}:{kind}:{level}"),
            None => format!("{user}:{role}:{kind}"),
        }
    }

    fn explain(&self, error: Errno, path: &Path) -> LabelError {
        match error {
            Errno::OPNOTSUPP => LabelError::Unsupported(path.to_owned()),
            Errno::INVAL => LabelError::Unknown {
                context: self.in_place_of(None),
            },
            Errno::PERM | Errno::ACCESS => LabelError::Denied(path.to_owned()),
            error => LabelError::System {
                path: path.to_owned(),
                error: error.into(),
            },
        }
    }
}

/// The context a file has; `None` when it has none.
fn read(file: &Path) -> Result<Option<String>, Errno> {
    let mut value = [0; MAX_CONTEXT];
    match lgetxattr(file, ATTRIBUTE, &mut value[..]) {
        Ok(length) => {
            let text = String::from_utf8_lossy(&value[..length]);
            Ok(Some(text.trim_end_matches('\0').to_owned()))
        }
        Err(Errno::NODATA) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn csi_11_a_type_or_a_whole_context() {
        let whole = "system_u:object_r:container_file_t:s0:c1,c2";
        assert_eq!(whole.parse(), Ok(Label::Context(whole.to_owned())));
        assert_eq!(
            "container_file_t".parse(),
            Ok(Label::Type("container_file_t".to_owned()))
        );
        for wrong in ["", "a:b", "a::c", "a b", "a:b:c:s 0", "type\0", "::"] {
            assert!(wrong.parse::<Label>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn csi_11_a_type_leaves_the_rest_of_the_context() {
        let label = Label::Type("t".to_owned());
        assert_eq!(
            label.in_place_of(Some("u:r:old:s0:c1,c2")),
            "u:r:t:s0:c1,c2"
        );
        assert_eq!(label.in_place_of(Some("u:r:old")), "u:r:t");
        assert_eq!(label.in_place_of(None), "system_u:object_r:t:s0");
    }
}
