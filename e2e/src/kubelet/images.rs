//! Which local program an image's name stands for.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Result;

use crate::binaries;

/// A stand-in for an image: files over the machine's `/usr` and `/etc`.
#[derive(Clone, Debug)]
pub struct Image {
    /// A file of this machine, and where it is in the image.
    pub files: Vec<(PathBuf, PathBuf)>,
    /// What runs when the container names no command.
    pub entrypoint: Vec<String>,
    /// The image's user.
    pub user: u32,
}

/// Images by name; a name matches with or without its tag or digest.
#[derive(Clone, Debug, Default)]
pub struct Images(BTreeMap<String, Image>);

impl Images {
    /// `envoy`, `signet`, `stock` and `app` under every name that Signet's manifests and tests give them.
    ///
    /// # Errors
    /// When a program was not built or fetched.
    pub fn usual() -> Result<Self> {
        let of = |program: PathBuf, place: &str, arguments: &[&str], user| {
            let place = place.to_owned();
            let words = arguments.iter().map(ToString::to_string);
            Image {
                entrypoint: std::iter::once(place.clone()).chain(words).collect(),
                files: vec![(program, PathBuf::from(place))],
                user,
            }
        };
        let mut images = Self::default();
        let envoy = of(binaries::envoy()?, "/usr/local/bin/envoy", &[], 101);
        images.add("docker.io/envoyproxy/envoy", envoy.clone());
        images.add("docker.io/envoyproxy/envoy-distroless", envoy);
        images.add(
            "signet",
            of(binaries::signet()?, "/usr/bin/signet", &[], 65532),
        );
        images.add(
            "app",
            of(
                binaries::shim()?,
                "/usr/local/bin/shim",
                &["app", "8080"],
                1000,
            ),
        );
        images.add(
            "stock",
            of(binaries::stock()?, "/usr/local/bin/stock", &["x509"], 1000),
        );
        Ok(images)
    }

    /// Adds or replaces one.
    pub fn add(&mut self, name: &str, image: Image) {
        self.0.insert(name.to_owned(), image);
    }

    /// The image of this reference: by its whole name, else by what follows the last `/` of one.
    #[must_use]
    pub fn find(&self, reference: &str) -> Option<&Image> {
        let name = reference.split('@').next().unwrap_or(reference);
        let name = match name.rsplit_once(':') {
            Some((before, tag)) if !tag.contains('/') => before,
            _ => name,
        };
        let last = |name: &str| name.rsplit('/').next().unwrap_or(name).to_owned();
        let exact = self.0.get(name);
        exact.or_else(|| {
            let similar = self.0.iter().find(|(known, _)| last(known) == last(name));
            similar.map(|(_, image)| image)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_is_found_by_its_name_without_tag_and_digest() {
        let mut images = Images::default();
        let image = Image {
            files: Vec::new(),
            entrypoint: vec!["x".to_owned()],
            user: 0,
        };
        images.add("docker.io/envoyproxy/envoy", image);
        for found in [
            "envoyproxy/envoy:v1.40.0",
            "localhost:5000/envoy@sha256:00",
            "envoy",
        ] {
            assert!(images.find(found).is_some(), "{found}");
        }
        assert!(images.find("localhost:5000/other").is_none());
    }
}
