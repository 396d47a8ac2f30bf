//! Entries from a file: `{"entries": [...]}` with SPIRE's names, or what `-output json` prints.

use std::path::Path;

use anyhow::{Context, Result, bail};
use identity::{EntryId, Selector, SpiffeId, TrustDomain};
use proto::spire::api::types;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _};

use crate::files::read_text;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entries {
    entries: Vec<Entry>,
    #[serde(default, rename = "next_page_token")]
    _next_page_token: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    #[serde(default, alias = "id", deserialize_with = "entry_id")]
    entry_id: String,
    spiffe_id: Id,
    parent_id: Id,
    selectors: Vec<FileSelector>,
    #[serde(default)]
    x509_svid_ttl: i32,
    #[serde(default)]
    jwt_svid_ttl: i32,
    #[serde(default)]
    federates_with: Vec<Domain>,
    #[serde(default)]
    admin: bool,
    #[serde(default)]
    downstream: bool,
    #[serde(
        default,
        alias = "expires_at",
        alias = "entry_expiry",
        rename = "entryExpiry"
    )]
    entry_expiry: Number,
    #[serde(default)]
    dns_names: Vec<String>,
    #[serde(default)]
    store_svid: bool,
    #[serde(default)]
    hint: String,
    #[serde(default)]
    additional_attributes: Option<Attributes>,
    // What only a server sets.
    #[serde(default, rename = "revision_number")]
    _revision_number: Number,
    #[serde(default, rename = "created_at")]
    _created_at: Number,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Attributes {
    #[serde(default)]
    disable_x509_svid_prefetch: bool,
    #[serde(default)]
    jwt_svid_include_jti: bool,
}

struct Id(SpiffeId);

struct FileSelector(Selector);

struct Domain(TrustDomain);

/// A 64-bit number; protobuf's JSON writes it as text.
#[derive(Default)]
struct Number(i64);

/// Reads entries.
pub(super) fn entries(path: &Path) -> Result<Vec<types::Entry>> {
    let read: Entries = serde_json::from_str(&read_text(path)?)
        .with_context(|| malformed(path, r#"{"entries": [...]}"#))?;
    if read.entries.is_empty() {
        bail!("{} has no entries", path.display());
    }
    Ok(read.entries.into_iter().map(Into::into).collect())
}

/// Reads entry IDs: `["id", ...]`, or `{"ids": [...]}`.
pub(super) fn ids(path: &Path) -> Result<Vec<EntryId>> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Ids {
        Bare(Vec<String>),
        Named { ids: Vec<String> },
    }
    let read: Ids = serde_json::from_str(&read_text(path)?)
        .with_context(|| malformed(path, r#"["ID", ...]"#))?;
    let (Ids::Bare(ids) | Ids::Named { ids }) = read;
    if ids.is_empty() {
        bail!("{} has no entry IDs", path.display());
    }
    ids.iter().map(|id| Ok(EntryId::new(id)?)).collect()
}

fn malformed(path: &Path, wanted: &str) -> String {
    format!("{} does not hold {wanted}", path.display())
}

impl From<Entry> for types::Entry {
    fn from(entry: Entry) -> Self {
        Self {
            id: entry.entry_id,
            spiffe_id: Some((&entry.spiffe_id.0).into()),
            parent_id: Some((&entry.parent_id.0).into()),
            selectors: entry.selectors.iter().map(|one| (&one.0).into()).collect(),
            x509_svid_ttl: entry.x509_svid_ttl,
            jwt_svid_ttl: entry.jwt_svid_ttl,
            federates_with: entry
                .federates_with
                .iter()
                .map(|one| one.0.to_string())
                .collect(),
            admin: entry.admin,
            downstream: entry.downstream,
            expires_at: entry.entry_expiry.0,
            dns_names: entry.dns_names,
            store_svid: entry.store_svid,
            hint: entry.hint,
            additional_attributes: entry.additional_attributes.map(|attributes| {
                types::entry::AdditionalAttributes {
                    disable_x509_svid_prefetch: attributes.disable_x509_svid_prefetch,
                    jwt_svid_include_jti: attributes.jwt_svid_include_jti,
                }
            }),
            ..Self::default()
        }
    }
}

fn entry_id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    if !text.is_empty() {
        EntryId::new(&text).map_err(D::Error::custom)?;
    }
    Ok(text)
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Whole(String),
            Parted { trust_domain: String, path: String },
        }
        let id = match Written::deserialize(deserializer)? {
            Written::Whole(text) => SpiffeId::parse(&text),
            Written::Parted { trust_domain, path } => TrustDomain::parse(&trust_domain)
                .and_then(|trust_domain| SpiffeId::new(&trust_domain, &path)),
        };
        id.map(Self).map_err(D::Error::custom)
    }
}

impl<'de> Deserialize<'de> for FileSelector {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Whole(String),
            Parted { r#type: String, value: String },
        }
        let selector = match Written::deserialize(deserializer)? {
            Written::Whole(text) => Selector::parse(&text),
            Written::Parted { r#type, value } => Selector::new(&r#type, &value),
        };
        selector.map(Self).map_err(D::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Domain {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        TrustDomain::parse(&text)
            .map(Self)
            .map_err(D::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(i64),
            Text(String),
        }
        match Written::deserialize(deserializer)? {
            Written::Number(number) => Ok(Self(number)),
            Written::Text(text) => text.parse().map(Self).map_err(D::Error::custom),
        }
    }
}
