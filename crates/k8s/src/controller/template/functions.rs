//! Functions that differ from gotmpl's own: Go's zero value for an absent key, and bounds on what they make.

use std::fmt::{self, Write};
use std::sync::{Arc, LazyLock};

use gotmpl::{FuncMap, Result, TemplateError, Value};

/// The longest text that a function may make, in bytes; no SPIFFE ID, DNS name or selector is longer.
const MAX_TEXT: usize = 8192;

/// The most operands of one `printf`.
const MAX_OPERANDS: usize = 12;

/// A writer that ends at a bound.
pub(super) struct Bounded {
    pub(super) text: String,
    pub(super) most: usize,
}

impl Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.text.len() + text.len() > self.most {
            return Err(fmt::Error);
        }
        self.text.push_str(text);
        Ok(())
    }
}

/// What replaces gotmpl's own functions.
pub(super) fn overrides() -> FuncMap {
    static SHARED: LazyLock<FuncMap> = LazyLock::new(|| {
        let mut all = FuncMap::new();
        all.insert("index".to_owned(), Arc::new(index));
        all.insert("print".to_owned(), Arc::new(|args| join(args, false)));
        all.insert("println".to_owned(), Arc::new(|args| join(args, true)));
        all.insert("printf".to_owned(), Arc::new(printf));
        all.insert(
            "html".to_owned(),
            Arc::new(|args| escape(args, gotmpl::html_escape)),
        );
        all.insert(
            "js".to_owned(),
            Arc::new(|args| escape(args, gotmpl::js_escape)),
        );
        all.insert(
            "urlquery".to_owned(),
            Arc::new(|args| escape(args, gotmpl::url_encode)),
        );
        all
    });
    SHARED.clone()
}

/// `index`: an absent key of a map gives the zero value, which is "" since the maps here hold texts.
fn index(args: &[Value]) -> Result<Value> {
    let [first, keys @ ..] = args else {
        return Err(refused("index wants a value and what to look up"));
    };
    let mut value = first.clone();
    for key in keys {
        value = match (&value, key) {
            (Value::Map(map), Value::String(key)) => {
                let absent = || Value::String("".into());
                map.get(key.as_ref()).cloned().unwrap_or_else(absent)
            }
            _ => value.index(key)?,
        };
    }
    Ok(value)
}

/// `print` and `println`: a space between operands when neither is a text (`print`), or always.
fn join(args: &[Value], line: bool) -> Result<Value> {
    let mut out = Bounded {
        text: String::new(),
        most: MAX_TEXT,
    };
    let text = |value: &Value| matches!(value, Value::String(_));
    for (at, arg) in args.iter().enumerate() {
        let before = at.checked_sub(1).and_then(|at| args.get(at));
        if before.is_some_and(|before| line || !(text(before) || text(arg))) {
            out.write_char(' ').map_err(|_| too_long())?;
        }
        write!(out, "{arg}").map_err(|_| too_long())?;
    }
    if line {
        out.write_char('\n').map_err(|_| too_long())?;
    }
    Ok(Value::String(out.text.into()))
}

/// `printf`, once its result is known to stay within bounds.
fn printf(args: &[Value]) -> Result<Value> {
    let Some(Value::String(format)) = args.first() else {
        return Err(refused("printf wants a format first"));
    };
    let operands = args.len() - 1;
    if operands > MAX_OPERANDS {
        return Err(refused("printf takes at most 12 operands here"));
    }
    let longest = args
        .iter()
        .skip(1)
        .map(shown_len)
        .try_fold(0, |most, len| Some(most.max(len?)));
    let widths = largest_number(format, args).max(32);
    let verbs = format.bytes().filter(|byte| *byte == b'%').count();
    let most = longest.map(|longest| {
        verbs
            .saturating_mul(longest.max(widths))
            .saturating_add(format.len())
    });
    if most.is_none_or(|most| most > 2 * MAX_TEXT) {
        return Err(too_long());
    }
    let template = FORMATS
        .get(operands)
        .and_then(Option::as_ref)
        .ok_or_else(too_long)?;
    let text = template.execute_to_string(&Value::List(args.into()))?;
    bounded(text)
}

/// gotmpl's own `printf`, by number of operands: it cannot be called but from a template.
static FORMATS: LazyLock<Vec<Option<gotmpl::Template>>> = LazyLock::new(|| {
    let template = |operands: usize| {
        let operands: String = (0..=operands)
            .map(|at| format!(" (index . {at})"))
            .collect();
        gotmpl::Template::new("printf")
            .parse(&format!("{{{{printf{operands}}}}}"))
            .ok()
    };
    (0..=MAX_OPERANDS).map(template).collect()
});

/// The largest width or precision that the format may ask for, be it written there or (`*`) an operand.
fn largest_number(format: &str, args: &[Value]) -> usize {
    let specs = format.split('%').skip(1);
    let spec = |text: &'_ str| {
        text.find(|c: char| !"#+- .*[]0123456789".contains(c))
            .unwrap_or(text.len())
    };
    let written = specs.flat_map(|text| text[..spec(text)].split(|c: char| !c.is_ascii_digit()));
    // A number too long to read is too large.
    let written = written
        .filter(|text| !text.is_empty())
        .map(|text| text.parse().unwrap_or(usize::MAX));
    let operands = args
        .iter()
        .filter(|_| format.contains('*'))
        .filter_map(|value| match value {
            Value::Int(number) => usize::try_from(number.unsigned_abs()).ok(),
            _ => None,
        });
    written.chain(operands).max().unwrap_or(0)
}

fn escape(args: &[Value], escape: fn(&str) -> String) -> Result<Value> {
    let joined = match args {
        [Value::Nil] => Value::String("<no value>".into()),
        args => join(args, false)?,
    };
    bounded(escape(joined.as_str().unwrap_or_default()))
}

/// How long `value` is when printed; none when it is longer than anything may be.
fn shown_len(value: &Value) -> Option<usize> {
    let mut out = Bounded {
        text: String::new(),
        most: MAX_TEXT,
    };
    write!(out, "{value}").ok()?;
    Some(out.text.len())
}

fn bounded(text: String) -> Result<Value> {
    if text.len() > MAX_TEXT {
        return Err(too_long());
    }
    Ok(Value::String(text.into()))
}

fn too_long() -> TemplateError {
    refused("the text it makes is longer than 8192 bytes")
}

fn refused(message: &str) -> TemplateError {
    TemplateError::Exec(message.to_owned())
}
