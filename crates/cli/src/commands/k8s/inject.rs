//! `signet k8s inject` and `signet k8s uninject`

use std::path::PathBuf;

use anyhow::{Result, bail};
use k8s::inject::{Drift, Rules};
use k8s::offline::{self, Action, PodTemplate};

use super::rules::RulesArgs;
use crate::files::read_text;
use crate::output::{Report, counted, say};

/// `k8s inject`
#[derive(clap::Args, Debug)]
pub(crate) struct Inject {
    #[command(flatten)]
    input: Input,
    /// Change nothing: tell what differs from what would be injected now, such as in `kubectl get pods -A -o yaml`
    #[arg(long = "check")]
    check: bool,
    #[command(flatten)]
    rules: RulesArgs,
}

/// `k8s uninject`
#[derive(clap::Args, Debug)]
pub(crate) struct Uninject {
    #[command(flatten)]
    input: Input,
}

#[derive(clap::Args, Debug)]
struct Input {
    /// Manifests in YAML or JSON; `-` is standard input
    #[arg(short = 'f', long = "filename", value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// The namespace of objects that name none
    #[arg(
        short = 'n',
        long = "namespace",
        value_name = "NAME",
        default_value = "default"
    )]
    namespace: String,
    /// Where a custom resource has its pod template: `<resource>.<group>=<path>`, such as
    /// `rollouts.argoproj.io=.spec.template`; `[*]` is every item. May be given several times
    #[arg(long = "pod-template", value_name = "RESOURCE=PATH")]
    pod_templates: Vec<PodTemplate>,
    /// Tell only of what was changed or needs a look
    #[arg(short = 'q', long = "quiet")]
    quiet: bool,
}

impl Inject {
    pub(crate) fn run(self) -> Result<()> {
        let action = if self.check {
            Action::Check
        } else {
            Action::Inject
        };
        self.input.run(action, &self.rules.read()?)
    }
}

impl Uninject {
    pub(crate) fn run(self) -> Result<()> {
        self.input.run(Action::Uninject, &Rules::default())
    }
}

impl Input {
    /// Manifests to standard output, the report to standard error.
    fn run(&self, action: Action, rules: &Rules) -> Result<()> {
        let texts = self.files.iter().map(|file| read_text(file));
        let texts = texts.collect::<Result<Vec<_>>>()?;
        let run =
            |text: &str| offline::run(text, action, &self.namespace, rules, &self.pod_templates);
        let (text, reports) = run(&joined(&texts)).map_err(|error| {
            // By itself each file says which line of it is wrong.
            let mut alone = self.files.iter().zip(&texts);
            let found = alone.find_map(|(file, text)| Some((file, run(text).err()?)));
            match found {
                Some((file, error)) => {
                    anyhow::Error::new(error).context(file.display().to_string())
                }
                None => error.into(),
            }
        })?;
        let (mut told, mut failures) = (String::new(), 0);
        for report in &reports {
            failures += i64::from(report.is_failure());
            let dull = matches!(
                report.verdict,
                offline::Verdict::Unchanged(_)
                    | offline::Verdict::NotInjected
                    | offline::Verdict::Compared(Drift::None)
            );
            if !(self.quiet && dull && report.warnings.is_empty()) {
                told.push_str(&format!("{report}\n"));
            }
        }
        let out = if action == Action::Check {
            String::new()
        } else {
            text
        };
        say(&Report { out, err: told })?;
        match (failures, action) {
            (0, _) => Ok(()),
            (_, Action::Check) => bail!(
                "{} not up to date",
                counted(failures, "object is", "objects are")
            ),
            _ => bail!(
                "{} not injected",
                counted(failures, "object was", "objects were")
            ),
        }
    }
}

/// One stream: two files are two documents.
fn joined(texts: &[String]) -> String {
    let mut stream = String::new();
    for text in texts {
        if !stream.is_empty() && !stream.ends_with('\n') {
            stream.push('\n');
        }
        if !stream.is_empty() && !text.starts_with("---") {
            stream.push_str("---\n");
        }
        stream.push_str(text);
    }
    stream
}
