//! JSON as text, made from the inside out: `json!` would build its tree anew at each level that a part is put into.

use std::fmt::Write as _;

/// One JSON value, as an argument of a container. The kubelet, which replaces `$(NAME)` there, finds nothing to replace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Json(String);

/// What can be written into one.
pub(super) trait Part {
    fn write(&self, text: &mut String);
}

/// An object of these members.
macro_rules! object {
    ($($name:literal: $value:expr),* $(,)?) => {
        $crate::inject::bootstrap::json::Json::object()$(.with($name, &$value))*
    };
}
pub(super) use object;

impl Json {
    pub(super) fn object() -> Self {
        // Most are smaller: growing by doubling would copy each of them several times.
        let mut text = String::with_capacity(256);
        text.push_str("{}");
        Self(text)
    }

    /// A string that the kubelet is to find, with nothing in it that JSON would escape.
    pub(super) fn verbatim(text: &'static str) -> Self {
        Self(format!("\"{text}\""))
    }

    /// An object with one more member.
    pub(super) fn with<P: Part + ?Sized>(mut self, name: &str, value: &P) -> Self {
        let Self(text) = &mut self;
        text.pop();
        if text.len() > 1 {
            text.push(',');
        }
        name.write(text);
        text.push(':');
        value.write(text);
        text.push('}');
        self
    }

    pub(super) fn into_text(self) -> String {
        self.0
    }
}

impl Part for Json {
    fn write(&self, text: &mut String) {
        text.push_str(&self.0);
    }
}

impl Part for str {
    fn write(&self, text: &mut String) {
        let special = |byte: u8| byte < b' ' || matches!(byte, b'"' | b'\\' | b'$');
        text.push('"');
        let mut rest = self;
        // All of them are ASCII, so that a text is never cut within a character.
        while let Some(at) = rest.bytes().position(special) {
            text.push_str(&rest[..at]);
            // Writing into a string does not fail.
            let _ = write!(text, "\\u{:04x}", rest.as_bytes()[at]);
            rest = &rest[at + 1..];
        }
        text.push_str(rest);
        text.push('"');
    }
}

impl Part for String {
    fn write(&self, text: &mut String) {
        self.as_str().write(text);
    }
}

impl Part for bool {
    fn write(&self, text: &mut String) {
        text.push_str(if *self { "true" } else { "false" });
    }
}

impl Part for u32 {
    fn write(&self, text: &mut String) {
        let _ = write!(text, "{self}");
    }
}

impl Part for u16 {
    fn write(&self, text: &mut String) {
        u32::from(*self).write(text);
    }
}

impl<P: Part + ?Sized> Part for &P {
    fn write(&self, text: &mut String) {
        (*self).write(text);
    }
}

impl<P: Part> Part for [P] {
    fn write(&self, text: &mut String) {
        text.push('[');
        for (number, part) in self.iter().enumerate() {
            if number > 0 {
                text.push(',');
            }
            part.write(text);
        }
        text.push(']');
    }
}

impl<P: Part, const N: usize> Part for [P; N] {
    fn write(&self, text: &mut String) {
        self.as_slice().write(text);
    }
}

impl<P: Part> Part for Vec<P> {
    fn write(&self, text: &mut String) {
        self.as_slice().write(text);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn it_is_what_json_would_be() {
        let list = vec![object! {}, object! {"deep": [1_u16, 2]}];
        let made = object! {"a": "x", "b": list, "c": true, "d": 0o600_u32, "e": [] as [u16; 0]};
        let read: Value = serde_json::from_str(&made.into_text()).expect("JSON");
        let expected = json!({"a": "x", "b": [{}, {"deep": [1, 2]}], "c": true, "d": 384, "e": []});
        assert_eq!(read, expected);
        let text = object! {"at": Json::verbatim("$(POD)")}.into_text();
        assert_eq!(text, r#"{"at":"$(POD)"}"#);
    }

    proptest! {
        #[test]
        fn every_string_comes_back_and_none_is_replaced(text in any::<String>()) {
            let made = object! {"a": text}.into_text();
            prop_assert!(!made.contains('$'), "{}", made);
            let read: Value = serde_json::from_str(&made).expect("JSON");
            prop_assert_eq!(&read["a"], &json!(text));
        }
    }
}
