//! Kubernetes quantities, such as `250m` or `64Mi`: checked and compared, never rewritten.

/// An amount, in thousandths of a thousandth of a thousandth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Quantity(u128);

/// More digits than any amount needs; keeps the arithmetic in range.
const MAX_DIGITS: usize = 18;

impl Quantity {
    /// Reads a positive quantity or zero.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let hint = "write a quantity such as 250m, 0.5, 64Mi or 1Gi";
        let end = text
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(text.len());
        let (number, suffix) = text.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let digits = whole.len() + fraction.len();
        if digits == 0 || fraction.contains('.') {
            return Err(hint.to_owned());
        }
        if digits > MAX_DIGITS || fraction.len() > 9 {
            return Err(format!("too many digits: {hint}"));
        }
        let unit = unit(suffix).ok_or_else(|| format!("unknown suffix {suffix:?}: {hint}"))?;
        let all: u128 = format!("{whole}{fraction}")
            .parse()
            .map_err(|_| hint.to_owned())?;
        let scale = 10_u128.pow(u32::try_from(fraction.len()).unwrap_or(0));
        all.checked_mul(unit)
            .map(|nano| Self(nano / scale))
            .ok_or_else(|| format!("too large: {hint}"))
    }
}

/// A suffix in units of 10⁻⁹.
fn unit(suffix: &str) -> Option<u128> {
    const ONE: u128 = 1_000_000_000;
    Some(match suffix {
        "" => ONE,
        "n" => 1,
        "u" => 1_000,
        "m" => 1_000_000,
        "k" => ONE * 1_000,
        "M" => ONE * 1_000_000,
        "G" => ONE * 1_000_000_000,
        "T" => ONE * 1_000_000_000_000,
        "P" => ONE * 1_000_000_000_000_000,
        "E" => ONE * 1_000_000_000_000_000_000,
        "Ki" => ONE << 10,
        "Mi" => ONE << 20,
        "Gi" => ONE << 30,
        "Ti" => ONE << 40,
        "Pi" => ONE << 50,
        "Ei" => ONE << 60,
        _ => return exponent(suffix),
    })
}

/// `e3`, `E-2`.
fn exponent(suffix: &str) -> Option<u128> {
    let power: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
    let power = power.checked_add(9)?;
    (0..=27)
        .contains(&power)
        .then(|| 10_u128.pow(power.unsigned_abs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_compare_across_suffixes() {
        let parse = |text| Quantity::parse(text).expect(text);
        assert_eq!(parse("0.5"), parse("500m"));
        assert_eq!(parse("1Gi"), parse("1024Mi"));
        assert_eq!(parse("1e3"), parse("1k"));
        assert_eq!(parse("1E3"), parse("1000"));
        assert!(parse("1M") < parse("1Mi"));
        assert!(parse("1E") < parse("1Ei"));
    }

    #[test]
    fn what_is_no_quantity_is_told() {
        for text in [
            "",
            "Mi",
            "1.2.3",
            "-1",
            "1mi",
            "1 Mi",
            "1e99",
            "9999999999999999999",
            "0x1",
            "1e",
            ".",
        ] {
            assert!(Quantity::parse(text).is_err(), "{text}");
        }
    }
}
