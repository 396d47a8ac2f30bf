//! What can be told of a template before it runs: fields that Go's structs do not have, and how long it may run.

use std::collections::BTreeSet;

use gotmpl::parse::{BranchNode, CommandNode, Expr, ListNode, Node, PipeNode};

use super::TemplateError;
use super::project::Needs;
use super::shapes::{self, Ty};

/// The most nodes of a template, those of the templates it calls counted at each call. With the bound on iterations it bounds
/// the time of a run.
const MAX_NODES: usize = 400;

/// Reads a parsed template of root type `root`; gives what it needs of its data.
pub(super) fn check(
    template: &gotmpl::Template,
    name: &str,
    root: &'static str,
) -> Result<Needs, TemplateError> {
    let mut check = Check {
        template,
        root: Ty::Struct(root),
        variables: Vec::new(),
        calls: Vec::new(),
        nodes: 0,
        needs: Needs::default(),
    };
    if let Some(body) = template.lookup(name) {
        let dot = check.root.clone();
        check.list(body, &dot)?;
    }
    Ok(check.needs)
}

struct Check<'a> {
    template: &'a gotmpl::Template,
    root: Ty,
    variables: Vec<(String, Ty)>,
    calls: Vec<String>,
    nodes: usize,
    needs: Needs,
}

type Checked<T = ()> = Result<T, TemplateError>;

impl Check<'_> {
    fn list(&mut self, list: &ListNode, dot: &Ty) -> Checked {
        list.nodes.iter().try_for_each(|node| self.node(node, dot))
    }

    fn step(&mut self) -> Checked {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(TemplateError::TooLarge);
        }
        Ok(())
    }

    fn node(&mut self, node: &Node, dot: &Ty) -> Checked {
        self.step()?;
        match node {
            Node::Action(action) => {
                let ty = self.pipe(&action.pipe, dot)?;
                if action.pipe.decl.is_empty() {
                    self.whole(&ty);
                }
                Ok(())
            }
            Node::If(branch) => self.branch(branch, dot, |ty| Ok((dot.clone(), ty))),
            Node::With(branch) => self.branch(branch, dot, |ty| Ok((ty.clone(), ty))),
            Node::Range(branch) => self.branch(branch, dot, |ty| {
                let element = element(&ty)?;
                Ok((element.clone(), element))
            }),
            Node::Template(call) => {
                let argument = match &call.pipe {
                    Some(pipe) => self.pipe(pipe, dot)?,
                    None => Ty::Unknown,
                };
                self.call(call.name.as_str(), argument)
            }
            Node::List(list) => self.list(list, dot),
            Node::Text(_) | Node::Define(_) | Node::Break(_) | Node::Continue(_) => Ok(()),
        }
    }

    /// A control structure; `inner` gives the dot of its body and the type of its variable out of the pipeline's type.
    fn branch(
        &mut self,
        branch: &BranchNode,
        dot: &Ty,
        inner: impl FnOnce(Ty) -> Checked<(Ty, Ty)>,
    ) -> Checked {
        let before = self.variables.len();
        let ty = self.pipe_value(&branch.pipe, dot)?;
        let (body_dot, variable) = inner(ty)?;
        let assigned = branch.pipe.is_assign;
        match branch.pipe.decl.as_slice() {
            [] => {}
            [only] => self.declare(only.as_str(), &variable, assigned),
            [key, element, ..] => {
                self.declare(key.as_str(), &Ty::Unknown, assigned);
                self.declare(element.as_str(), &variable, assigned);
            }
        }
        self.list(&branch.body, &body_dot)?;
        if let Some(body) = &branch.else_body {
            self.list(body, dot)?;
        }
        self.variables.truncate(before);
        Ok(())
    }

    fn call(&mut self, name: &str, dot: Ty) -> Checked {
        if self.calls.iter().any(|called| called == name) {
            return Err(TemplateError::Recursion(name.to_owned()));
        }
        let template = self.template;
        let Some(body) = template.lookup(name) else {
            return Err(TemplateError::NoTemplate(name.to_owned()));
        };
        self.calls.push(name.to_owned());
        let root = std::mem::replace(&mut self.root, dot.clone());
        let variables = std::mem::take(&mut self.variables);
        let checked = self.list(body, &dot);
        self.variables = variables;
        self.root = root;
        self.calls.pop();
        checked
    }

    /// A pipeline's type; its variables are declared.
    fn pipe(&mut self, pipe: &PipeNode, dot: &Ty) -> Checked<Ty> {
        let ty = self.pipe_value(pipe, dot)?;
        for name in &pipe.decl {
            self.declare(name.as_str(), &ty, pipe.is_assign);
        }
        Ok(ty)
    }

    fn pipe_value(&mut self, pipe: &PipeNode, dot: &Ty) -> Checked<Ty> {
        let mut piped = None;
        for command in &pipe.commands {
            self.step()?;
            piped = Some(self.command(command, dot, piped.as_ref())?);
        }
        Ok(piped.unwrap_or(Ty::Unknown))
    }

    fn declare(&mut self, name: &str, ty: &Ty, assigned: bool) {
        let existing = self
            .variables
            .iter_mut()
            .rev()
            .find(|(known, _)| known == name);
        match existing.filter(|_| assigned) {
            Some((_, known)) if known == ty => {}
            Some((_, known)) => {
                // The variable has one type or the other, by the way taken.
                *known = Ty::Unknown;
                self.needs.all = true;
            }
            None => self.variables.push((name.to_owned(), ty.clone())),
        }
    }

    fn command(&mut self, command: &CommandNode, dot: &Ty, piped: Option<&Ty>) -> Checked<Ty> {
        let Some((first, rest)) = command.args.split_first() else {
            return Ok(Ty::Unknown);
        };
        let (name, fields) = match first {
            Expr::Identifier(_, name) => (name, [].as_slice()),
            Expr::Chain(_, inner, fields) => match &**inner {
                Expr::Identifier(_, name) => (name, fields.as_slice()),
                _ => return self.expr(first, dot),
            },
            _ => return self.expr(first, dot),
        };
        let mut operands = Vec::new();
        for operand in rest {
            self.step()?;
            operands.push(self.expr(operand, dot)?);
        }
        operands.extend(piped.cloned());
        let result = self.function(name.as_str(), &operands)?;
        fields
            .iter()
            .try_fold(result, |ty, field| self.field(&ty, field.as_str()))
    }

    fn function(&mut self, name: &str, operands: &[Ty]) -> Checked<Ty> {
        if let ("index", Some((first, keys))) = (name, operands.split_first()) {
            return keys
                .iter()
                .try_fold(first.clone(), |ty, _| match ty.target() {
                    Ty::List(inner) | Ty::Map(inner) => Ok((**inner).clone()),
                    Ty::String => Ok(Ty::Int),
                    Ty::Unknown => Ok(Ty::Unknown),
                    other => Err(TemplateError::Index(other.name())),
                });
        }
        operands.iter().for_each(|ty| self.whole(ty));
        Ok(match name {
            "print" | "println" | "printf" | "html" | "js" | "urlquery" => Ty::String,
            "len" => Ty::Int,
            "eq" | "ne" | "lt" | "le" | "gt" | "ge" | "not" => Ty::Bool,
            "slice" => operands.first().cloned().unwrap_or(Ty::Unknown),
            "and" | "or" | "call" => Ty::Unknown,
            other => return Err(TemplateError::NoFunction(other.to_owned())),
        })
    }

    /// A value that is used as it is: a struct anywhere in it is needed whole.
    fn whole(&mut self, ty: &Ty) {
        match ty.target() {
            Ty::Struct(_) => self.needs.all = true,
            Ty::List(inner) | Ty::Map(inner) => self.whole(&inner.clone()),
            _ => {}
        }
    }

    fn expr(&mut self, expr: &Expr, dot: &Ty) -> Checked<Ty> {
        match expr {
            Expr::Dot(_) => Ok(dot.clone()),
            Expr::Field(_, fields) => fields
                .iter()
                .try_fold(dot.clone(), |ty, field| self.field(&ty, field.as_str())),
            Expr::Variable(_, name, fields) => {
                let ty = self.variable(name.as_str());
                fields
                    .iter()
                    .try_fold(ty, |ty, field| self.field(&ty, field.as_str()))
            }
            Expr::Chain(_, inner, fields) => {
                let ty = self.expr(inner, dot)?;
                fields
                    .iter()
                    .try_fold(ty, |ty, field| self.field(&ty, field.as_str()))
            }
            Expr::Pipe(_, pipe) => self.pipe(pipe, dot),
            Expr::String(..) => Ok(Ty::String),
            Expr::Bool(..) => Ok(Ty::Bool),
            Expr::Number(..) => Ok(Ty::Unknown),
            Expr::Identifier(_, name) => self.function(name.as_str(), &[]),
            Expr::Nil(_) => Ok(Ty::Unknown),
        }
    }

    fn variable(&self, name: &str) -> Ty {
        if name == "$" {
            return self.root.clone();
        }
        let known = self.variables.iter().rev().find(|(known, _)| known == name);
        known.map_or(Ty::Unknown, |(_, ty)| ty.clone())
    }

    fn field(&mut self, of: &Ty, field: &str) -> Checked<Ty> {
        match of.target() {
            Ty::Unknown | Ty::Opaque => Ok(Ty::Unknown),
            Ty::Map(inner) => Ok((**inner).clone()),
            Ty::Struct(name) => {
                let shape = shapes::named(name).and_then(|shape| shape.get_key_value(field));
                let Some((go, found)) = shape else {
                    return Err(TemplateError::NoField {
                        of: (*name).to_owned(),
                        field: field.to_owned(),
                        near: near(name, field),
                    });
                };
                self.needs.fields.insert((name, go));
                Ok(found.ty.clone())
            }
            other => Err(TemplateError::NoField {
                of: other.name(),
                field: field.to_owned(),
                near: String::new(),
            }),
        }
    }
}

/// What `range` goes through in a value of type `ty`.
fn element(ty: &Ty) -> Checked<Ty> {
    match ty.target() {
        Ty::List(inner) | Ty::Map(inner) => Ok((**inner).clone()),
        Ty::Int => Ok(Ty::Int),
        Ty::Unknown => Ok(Ty::Unknown),
        other => Err(TemplateError::Range(other.name())),
    }
}

/// "; did you mean …?" for a field that differs only in case, as Kubernetes' own spelling does.
fn near(of: &str, field: &str) -> String {
    let fields: BTreeSet<&str> = shapes::named(of)
        .into_iter()
        .flat_map(|shape| shape.keys().copied())
        .collect();
    let near = fields
        .into_iter()
        .find(|known| known.eq_ignore_ascii_case(field));
    near.map_or_else(String::new, |near| format!("; did you mean `.{near}`?"))
}
