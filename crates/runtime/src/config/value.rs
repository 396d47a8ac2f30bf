use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value as Json;

/// What a key can hold. Numbers and booleans may be written as text, as SPIRE's own files do.
pub trait Value: Sized {
    /// What would be right: `a duration such as "30s" or "1h30m"`.
    fn expected() -> String;

    /// Reads a value of the file; `None` when it is not right.
    fn read(value: &Json) -> Option<Self>;

    /// Whether empty text stands for a missing value, as it does in rendered files.
    fn empty_is_missing() -> bool {
        true
    }
}

impl Value for String {
    fn expected() -> String {
        "text in quotes".to_owned()
    }

    fn read(value: &Json) -> Option<Self> {
        match value {
            Json::String(text) => Some(text.clone()),
            Json::Number(number) => Some(number.to_string()),
            Json::Bool(flag) => Some(flag.to_string()),
            _ => None,
        }
    }

    fn empty_is_missing() -> bool {
        false
    }
}

impl Value for PathBuf {
    fn expected() -> String {
        "a path in quotes".to_owned()
    }

    fn read(value: &Json) -> Option<Self> {
        value.as_str().map(Self::from)
    }
}

impl Value for bool {
    fn expected() -> String {
        "true or false".to_owned()
    }

    fn read(value: &Json) -> Option<Self> {
        match value {
            Json::Bool(flag) => Some(*flag),
            Json::String(text) => match text.as_str() {
                "true" | "True" | "TRUE" | "t" | "T" | "1" => Some(true),
                "false" | "False" | "FALSE" | "f" | "F" | "0" => Some(false),
                _ => None,
            },
            Json::Number(number) => match number.as_u64() {
                Some(0) => Some(false),
                Some(1) => Some(true),
                _ => None,
            },
            _ => None,
        }
    }
}

macro_rules! whole_numbers {
    ($($number:ty),*) => {$(
        impl Value for $number {
            fn expected() -> String {
                if <$number>::MAX as u128 > u128::from(u32::MAX) {
                    "a whole number".to_owned()
                } else {
                    format!("a whole number from {} to {}", <$number>::MIN, <$number>::MAX)
                }
            }

            fn read(value: &Json) -> Option<Self> {
                match value {
                    Json::Number(number) => number.to_string().parse().ok(),
                    Json::String(text) => text.parse().ok(),
                    _ => None,
                }
            }
        }
    )*};
}

whole_numbers!(u8, u16, u32, u64, usize, i32, i64);

impl Value for f64 {
    fn expected() -> String {
        "a number".to_owned()
    }

    fn read(value: &Json) -> Option<Self> {
        match value {
            Json::Number(number) => number.as_f64(),
            Json::String(text) => text.parse().ok().filter(|number: &Self| number.is_finite()),
            _ => None,
        }
    }
}

impl Value for Duration {
    fn expected() -> String {
        "a duration such as \"30s\" or \"1h30m\"".to_owned()
    }

    fn read(value: &Json) -> Option<Self> {
        value.as_str().and_then(parse_duration)
    }
}

impl Value for IpAddr {
    fn expected() -> String {
        "an IP address such as \"127.0.0.1\"".to_owned()
    }

    fn read(value: &Json) -> Option<Self> {
        value.as_str()?.parse().ok()
    }
}

impl Value for SocketAddr {
    fn expected() -> String {
        "an address such as \"127.0.0.1:8081\"".to_owned()
    }

    fn read(value: &Json) -> Option<Self> {
        value.as_str()?.parse().ok()
    }
}

/// A single value stands for a list of one.
impl<V: Value> Value for Vec<V> {
    fn expected() -> String {
        format!("a list, each item {}", V::expected())
    }

    fn read(value: &Json) -> Option<Self> {
        match value {
            Json::Array(items) => items.iter().map(V::read).collect(),
            single => V::read(single).map(|single| vec![single]),
        }
    }
}

impl<V: Value> Value for BTreeMap<String, V> {
    fn expected() -> String {
        format!("a block, each value in it {}", V::expected())
    }

    fn read(value: &Json) -> Option<Self> {
        let entry = |(key, value): (&String, &Json)| Some((key.clone(), V::read(value)?));
        match value {
            Json::Object(entries) => entries.iter().map(entry).collect(),
            // The JSON form of an HCL block may be a list of one.
            Json::Array(blocks) if blocks.len() == 1 => Self::read(&blocks[0]),
            _ => None,
        }
    }
}

/// As it stands in the file.
impl Value for Json {
    fn expected() -> String {
        "any value".to_owned()
    }

    fn read(value: &Json) -> Option<Self> {
        Some(value.clone())
    }

    fn empty_is_missing() -> bool {
        false
    }
}

/// Reads Go's notation of a duration: numbers, each with its unit, from `h`, `m`, `s`, `ms`, `us`, `µs`, `ns` (`1h30m`, `1.5s`); `0` alone
/// needs none. Negative durations are refused.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(digits);
        let end = after
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        total = total.checked_add(multiply(number, unit)?)?;
        rest = after;
    }
    Some(total)
}

fn multiply(number: &str, unit: &str) -> Option<Duration> {
    let nanoseconds: u128 = match unit {
        "h" => 3_600_000_000_000,
        "m" => 60_000_000_000,
        "s" => 1_000_000_000,
        "ms" => 1_000_000,
        "us" | "µs" | "μs" => 1_000,
        "ns" => 1,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let digits = |digits: &str| -> Option<u128> {
        if digits.is_empty() {
            Some(0)
        } else {
            digits.parse().ok()
        }
    };
    // Beyond 18 digits a fraction is less than a nanosecond.
    let fraction = &fraction[..fraction.len().min(18)];
    let scale = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    let parts = digits(fraction)?.checked_mul(nanoseconds)? / scale;
    let all = digits(whole)?
        .checked_mul(nanoseconds)?
        .checked_add(parts)?;
    u64::try_from(all).ok().map(Duration::from_nanos)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn durations_are_gos() {
        let check = |text, expected: Option<u64>| {
            assert_eq!(
                parse_duration(text),
                expected.map(Duration::from_millis),
                "{text}"
            );
        };
        check("10s", Some(10_000));
        check("1h30m", Some(5_400_000));
        check("1.5h", Some(5_400_000));
        check("300ms", Some(300));
        check("2m0.5s", Some(120_500));
        check("1000us", Some(1));
        check("1000µs", Some(1));
        check(".5s", Some(500));
        check("1.s", Some(1000));
        check("0", Some(0));
        check("+5s", Some(5000));
        for wrong in [
            "",
            "5",
            "s",
            ".s",
            "-5s",
            "5 s",
            "5d",
            "1.2.3s",
            "5S",
            "99999999999h",
            "+",
        ] {
            check(wrong, None);
        }
        assert_eq!(parse_duration("1000000ns"), Some(Duration::from_millis(1)));
    }

    #[test]
    fn numbers_and_booleans_may_be_text() {
        assert_eq!(u16::read(&json!("443")), Some(443));
        assert_eq!(u16::read(&json!(443)), Some(443));
        assert_eq!(u16::read(&json!(70_000)), None);
        assert_eq!(u16::read(&json!(1.5)), None);
        assert_eq!(i64::read(&json!(-1)), Some(-1));
        assert_eq!(bool::read(&json!("true")), Some(true));
        assert_eq!(bool::read(&json!(0)), Some(false));
        assert_eq!(bool::read(&json!("yes")), None);
        assert_eq!(String::read(&json!(5)), Some("5".to_owned()));
        assert_eq!(Vec::<String>::read(&json!("a")), Some(vec!["a".to_owned()]));
        assert_eq!(Vec::<u16>::read(&json!([1, "2"])), Some(vec![1, 2]));
        assert_eq!(Vec::<u16>::read(&json!([1, "x"])), None);
    }

    proptest! {
        #[test]
        fn whole_seconds_and_milliseconds_come_back(seconds in 0_u64..1_000_000, ms in 0_u64..1_000) {
            let expected = Duration::from_secs(seconds) + Duration::from_millis(ms);
            prop_assert_eq!(parse_duration(&format!("{seconds}s{ms}ms")), Some(expected));
            prop_assert_eq!(parse_duration(&format!("{seconds}.{ms:03}s")), Some(expected));
        }

        #[test]
        fn no_text_panics(text: String, number in "[0-9.]{0,60}", unit in "[a-zµ]{0,3}") {
            let _ = parse_duration(&text);
            let _ = parse_duration(&format!("{number}{unit}"));
        }
    }
}
