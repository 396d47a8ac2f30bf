//! In which form an Envoy takes trust bundles.

use prost_types::value::Kind;
use proto::discovery::Node;

use super::Options;

/// The node metadata by which one Envoy overrules the agent's configuration; SPIRE's key.
const DISABLE_KEY: &str = "disable_spiffe_cert_validation";

/// The first Envoy with a SPIFFE validator.
const FIRST_VALIDATOR: (u32, u32) = (1, 18);

/// The first Envoy that can ask for a client certificate without a list of all authorities.
const FIRST_BRIEF: (u32, u32) = (1, 39);

/// What one Envoy makes of a validation context.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Style {
    /// How it takes trust bundles.
    pub form: Form,
    /// Whether it can keep the names of the authorities to itself when it asks for a client certificate.
    pub brief: bool,
}

impl Style {
    /// That of an Envoy that describes itself like this, on a stream whose own metadata say whether the validator is
    /// disabled.
    #[must_use]
    pub fn chosen(stream: Option<bool>, node: Option<&Node>, options: &Options) -> Self {
        Self {
            form: Form::chosen(stream, node, options),
            brief: node.and_then(version).is_some_and(|is| is >= FIRST_BRIEF),
        }
    }
}

impl From<Form> for Style {
    /// That of an Envoy of which nothing else is known.
    fn from(form: Form) -> Self {
        Self { form, brief: false }
    }
}

/// How an Envoy takes a trust bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Form {
    /// For Envoy's SPIFFE validator, which keeps trust domains apart.
    Validator,
    /// As a plain list of CA certificates.
    PlainCa,
}

impl Form {
    /// The form for an Envoy that describes itself like this: its own metadata first, then the agent's configuration;
    /// plain when it is known to be too old for the validator.
    #[must_use]
    pub fn of(node: Option<&Node>, options: &Options) -> Self {
        Self::chosen(None, node, options)
    }

    /// As [`Form::of`], for a stream whose own metadata say whether the validator is disabled.
    #[must_use]
    pub fn chosen(stream: Option<bool>, node: Option<&Node>, options: &Options) -> Self {
        let disabled = stream
            .or_else(|| node.and_then(disabled_by))
            .unwrap_or(options.disable_spiffe_cert_validation);
        if disabled || node.is_some_and(is_too_old) {
            Self::PlainCa
        } else {
            Self::Validator
        }
    }
}

/// The metadata of a stream by which one of an Envoy's configuration sources overrules what else is said.
pub const STREAM_KEY: &str = DISABLE_KEY;

/// What the node's metadata says: a boolean, or a text that reads as one in Go.
fn disabled_by(node: &Node) -> Option<bool> {
    let value = node.metadata.as_ref()?.fields.get(DISABLE_KEY)?;
    match value.kind.as_ref()? {
        Kind::BoolValue(disabled) => Some(*disabled),
        Kind::StringValue(text) => read_bool(text),
        _ => None,
    }
}

/// A text that reads as a boolean in Go.
#[must_use]
pub fn read_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

fn is_too_old(node: &Node) -> bool {
    version(node).is_some_and(|is| is < FIRST_VALIDATOR)
}

fn version(node: &Node) -> Option<(u32, u32)> {
    let version = node.user_agent_build_version.as_ref()?.version?;
    Some((version.major_number, version.minor_number))
}

#[cfg(test)]
mod tests {
    use prost_types::{Struct, Value};
    use proto::discovery::{BuildVersion, SemanticVersion};

    use super::*;

    fn envoy(major_number: u32, minor_number: u32) -> Node {
        let version = SemanticVersion {
            major_number,
            minor_number,
        };
        Node {
            user_agent_build_version: Some(BuildVersion {
                version: Some(version),
            }),
            ..Node::default()
        }
    }

    #[test]
    fn s_5_26_new_envoys_need_not_name_authorities() {
        let brief = |node: Option<&Node>| Style::chosen(None, node, &Options::default()).brief;
        assert!(!brief(Some(&envoy(1, 38))));
        assert!(brief(Some(&envoy(1, 39))));
        assert!(brief(Some(&envoy(2, 0))));
        assert!(!brief(Some(&Node::default())), "who knows");
        assert!(!brief(None));
    }

    #[test]
    fn s_5_21_the_validator_is_for_envoys_that_have_one() {
        let form = |major, minor| Form::of(Some(&envoy(major, minor)), &Options::default());
        assert_eq!(form(1, 17), Form::PlainCa);
        assert_eq!(form(1, 18), Form::Validator);
        assert_eq!(form(1, 40), Form::Validator);
        assert_eq!(form(2, 0), Form::Validator);
        assert_eq!(Form::of(None, &Options::default()), Form::Validator);
        assert_eq!(
            Form::of(Some(&Node::default()), &Options::default()),
            Form::Validator
        );
    }

    #[test]
    fn s_5_22_node_metadata_overrules_the_agents_configuration() {
        let form = |kind: Option<Kind>, disabled| {
            let value = Value { kind };
            let metadata = Struct {
                fields: [(DISABLE_KEY.to_owned(), value)].into(),
            };
            let node = Node {
                metadata: Some(metadata),
                ..Node::default()
            };
            let options = Options {
                disable_spiffe_cert_validation: disabled,
                ..Options::default()
            };
            Form::of(Some(&node), &options)
        };
        let text = |text: &str| Some(Kind::StringValue(text.to_owned()));
        assert_eq!(form(Some(Kind::BoolValue(true)), false), Form::PlainCa);
        assert_eq!(form(Some(Kind::BoolValue(false)), true), Form::Validator);
        assert_eq!(form(text("true"), false), Form::PlainCa);
        assert_eq!(form(text("0"), true), Form::Validator);
        // Nonsense leaves it to the configuration.
        assert_eq!(form(text("please"), true), Form::PlainCa);
        assert_eq!(form(Some(Kind::NumberValue(1.0)), false), Form::Validator);
        assert_eq!(form(None, true), Form::PlainCa);
    }
}
