//! Who asks on a stream, and for what kinds of resource.

use std::{collections::BTreeSet, sync::Arc};

use proto::discovery::Node;

use super::{Note, RequestError, Subscriptions, check_type, describe, shortened};
use crate::sds::{Name, Style, TYPE_URL};

/// How many other types of resource are told of one stream.
const TYPES_TOLD: usize = 16;

/// What is kept of a node's description of itself.
#[derive(Debug)]
pub(super) struct Seen {
    style: Style,
    pub(super) hint: Option<Arc<str>>,
    described: String,
}

impl Subscriptions {
    /// Other types of resource may be asked for as well; they are not answered.
    pub(super) fn aggregate(&mut self) {
        self.foreign = Some(BTreeSet::new());
    }

    /// Takes what the stream's own metadata say of `disable_spiffe_cert_validation`, which overrules everything else.
    pub fn disable_spiffe_cert_validation(&mut self, disable: bool) {
        self.plain = Some(disable);
    }

    /// Remembers who asks, from the first request that says it. Tells whether the request is for secrets.
    pub(super) fn introduce(
        &mut self,
        node: Option<&Node>,
        type_url: &str,
    ) -> Result<bool, RequestError> {
        if let Some(node) = node.filter(|_| self.node.is_none()) {
            self.node = Some(Seen {
                style: Style::chosen(self.plain, Some(node), self.secrets.options()),
                described: describe(node),
                hint: Name::hint_of(node).map(Arc::from),
            });
        }
        let Some(foreign) = &mut self.foreign else {
            return check_type(type_url).map(|()| true);
        };
        if type_url == TYPE_URL {
            return Ok(true);
        }
        let type_url = shortened(type_url);
        if foreign.len() < TYPES_TOLD && foreign.insert(type_url.clone()) {
            self.notes.push(Note::ForeignType(type_url));
        }
        Ok(false)
    }

    /// The operator's names for the Envoy, `cluster/id`, once it has said them.
    #[must_use]
    pub fn node(&self) -> Option<&str> {
        self.node.as_ref().map(|node| node.described.as_str())
    }

    pub(super) fn style(&self) -> Style {
        let chosen = || Style::chosen(self.plain, None, self.secrets.options());
        self.node.as_ref().map_or_else(chosen, |node| node.style)
    }
}
