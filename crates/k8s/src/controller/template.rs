//! Go templates of the custom resources, by Go's rules, bounded in what they may cost.
//!
//! The engine is `gotmpl`. Where Go's types make a difference they are added here: an absent label looked up by `index` is "",
//! nil maps are empty, a field that the Go struct does not have is an error (when the template is read, not only when it
//! runs), and getters such as `.PodMeta.GetName` are there. A template sees all of ObjectMeta, PodSpec and NodeSpec under
//! their Go names, with Go's zero values.
//!
//! Whoever writes a custom resource must not be able to stop the controller: the source, the nodes of the template with
//! all the templates it calls, the iterations of `range` and every text are bounded, and recursion is refused.

mod check;
mod functions;
mod project;
mod shapes;

use std::collections::BTreeMap;
use std::sync::Arc;

use gotmpl::Value;
use identity::TrustDomain;
use serde_json::Value as Json;

use functions::Bounded;
use project::Needs;

/// The longest template, in bytes.
pub const MAX_SOURCE: usize = 8192;

/// The most iterations of all `range` together.
const MAX_ITERATIONS: u64 = 200;

/// The longest text that a template may make, in bytes: a selector's 4 KiB and something.
const MAX_OUTPUT: usize = 4608;

/// The name of the outermost template; no `define` can have it.
const NAME: &str = "\u{0}";

/// Why a template is refused, or does not render.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TemplateError {
    /// The source is too long.
    #[error("the template is longer than {MAX_SOURCE} bytes")]
    TooLong,
    /// Not a template by Go's grammar.
    #[error("not a template: {0}")]
    Parse(String),
    /// Go's struct has no such field.
    #[error("{of} has no field or getter `{field}`{near}")]
    NoField {
        /// The Go type.
        of: String,
        /// What was asked of it.
        field: String,
        /// A hint, or nothing.
        near: String,
    },
    /// `range` over something that cannot be.
    #[error("`range` cannot go over a {0}")]
    Range(String),
    /// `index` of something that has no elements.
    #[error("`index` cannot look into a {0}")]
    Index(String),
    /// A template that calls itself.
    #[error("template {0:?} calls itself; that is not allowed here")]
    Recursion(String),
    /// A call of a template that is not defined.
    #[error("there is no template {0:?}")]
    NoTemplate(String),
    /// A call of a function that Go's text/template does not have.
    #[error("there is no function {0:?}; templates have those of Go's text/template and no others")]
    NoFunction(String),
    /// Too many nodes.
    #[error(
        "the template is too large: at most 400 actions, arguments and texts, calls of other templates unfolded"
    )]
    TooLarge,
    /// Too long a text.
    #[error("the template makes more than {MAX_OUTPUT} bytes")]
    Output,
    /// An error while running.
    #[error("{0}")]
    Run(String),
}

/// What a template may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sees {
    /// The pod and its node.
    Pod,
    /// The node alone: a template of parent IDs.
    Node,
}

impl Sees {
    const fn root(self) -> &'static str {
        match self {
            Self::Pod => "PodData",
            Self::Node => "NodeData",
        }
    }
}

/// What all templates of a controller share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// `.TrustDomain`; IDs must be of it.
    pub trust_domain: TrustDomain,
    /// `.ClusterName`.
    pub cluster_name: String,
    /// `.ClusterDomain`, such as `cluster.local`; empty in templates when unknown.
    pub cluster_domain: Option<String>,
}

/// A template that was read and found in bounds.
#[derive(Clone)]
pub struct Template {
    engine: Arc<gotmpl::Template>,
    source: Arc<str>,
    sees: Sees,
    needs: Needs,
}

impl std::fmt::Debug for Template {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Template").field(&self.source).finish()
    }
}

impl Template {
    /// Reads `source`.
    ///
    /// # Errors
    /// When it is not a template, asks for what is not there, or may cost too much.
    pub fn compile(source: &str, sees: Sees) -> Result<Self, TemplateError> {
        if source.len() > MAX_SOURCE {
            return Err(TemplateError::TooLong);
        }
        let engine = gotmpl::Template::new(NAME)
            .max_range_iters(MAX_ITERATIONS)
            .funcs(functions::overrides());
        let engine = engine
            .parse(source)
            .map_err(|error| TemplateError::Parse(message(&error)))?;
        let needs = check::check(&engine, NAME, sees.root())?;
        Ok(Self {
            engine: Arc::new(engine),
            source: source.into(),
            sees,
            needs,
        })
    }

    /// Renders.
    ///
    /// # Errors
    /// When an action fails or the text gets too long.
    pub fn render(&self, data: &Data) -> Result<String, TemplateError> {
        let mut out = Bounded {
            text: String::new(),
            most: MAX_OUTPUT,
        };
        match self.engine.execute_fmt(&mut out, &data.0) {
            Ok(()) => Ok(out.text),
            Err(gotmpl::TemplateError::Write) => Err(TemplateError::Output),
            Err(error) => Err(TemplateError::Run(message(&error))),
        }
    }

    /// The template's text.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }
}

/// What templates are rendered with: only the parts that they ask for are made.
#[derive(Clone, Debug)]
pub struct Data(Value);

impl Data {
    /// For all of `templates`, which see the same: the pod and the node as Kubernetes' JSON.
    #[must_use]
    pub fn new<'a>(
        templates: impl IntoIterator<Item = &'a Template>,
        scope: &Scope,
        pod: &Json,
        node: &Json,
    ) -> Self {
        let mut needs = Needs::default();
        let mut sees = Sees::Node;
        for template in templates {
            needs.extend(&template.needs);
            if template.sees == Sees::Pod {
                sees = Sees::Pod;
            }
        }
        let text = |text: &str| Value::String(text.into());
        let mut root: BTreeMap<Arc<str>, Value> = BTreeMap::from([
            ("TrustDomain".into(), text(scope.trust_domain.as_str())),
            ("ClusterName".into(), text(&scope.cluster_name)),
            (
                "ClusterDomain".into(),
                text(scope.cluster_domain.as_deref().unwrap_or_default()),
            ),
        ]);
        let mut add = |name: &str, shape, json: &Json, part| {
            let part = json.get(part).unwrap_or(&Json::Null);
            root.insert(name.into(), project::project(shape, part, &needs));
        };
        add("NodeMeta", "ObjectMeta", node, "metadata");
        add("NodeSpec", "NodeSpec", node, "spec");
        if sees == Sees::Pod {
            add("PodMeta", "ObjectMeta", pod, "metadata");
            add("PodSpec", "PodSpec", pod, "spec");
        }
        Self(Value::Map(Arc::new(root)))
    }
}

/// An engine's error without the name that stands for "the template itself".
fn message(error: &gotmpl::TemplateError) -> String {
    let text = error
        .to_string()
        .replace(&format!("{NAME}:"), "")
        .replace(NAME, "");
    text.trim_start_matches("execution error: ").to_owned()
}

#[cfg(test)]
mod tests;
