//! The few lines of DER that no library here writes: public keys and signatures as JOSE wants them.

/// Tag, length and content.
pub(crate) fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(content.len() + 6);
    out.push(tag);
    let length = content.len();
    if length < 0x80 {
        out.push(length.to_be_bytes()[size_of::<usize>() - 1]);
    } else {
        let bytes = length.to_be_bytes();
        let significant: Vec<u8> = bytes
            .iter()
            .copied()
            .skip_while(|byte| *byte == 0)
            .collect();
        out.push(0x80 | u8::try_from(significant.len()).unwrap_or(0x7f));
        out.extend_from_slice(&significant);
    }
    out.extend_from_slice(content);
    out
}

/// A non-negative INTEGER from big-endian bytes.
pub(crate) fn unsigned(bytes: &[u8]) -> Vec<u8> {
    let mut content: Vec<u8> = bytes
        .iter()
        .copied()
        .skip_while(|byte| *byte == 0)
        .collect();
    if content.first().is_none_or(|first| first & 0x80 != 0) {
        content.insert(0, 0);
    }
    tlv(0x02, &content)
}

/// A BIT STRING without unused bits.
pub(crate) fn bits(bytes: &[u8]) -> Vec<u8> {
    let mut content = Vec::with_capacity(bytes.len() + 1);
    content.push(0);
    content.extend_from_slice(bytes);
    tlv(0x03, &content)
}

/// An ECDSA signature from its ASN.1 form to the fixed form of JOSE: r and s, `size` bytes each (RFC 7518 §3.4). `None`
/// when it is not one.
pub(crate) fn ecdsa_fixed(asn1: &[u8], size: usize) -> Option<Vec<u8>> {
    let (tag, content, rest) = read(asn1)?;
    if tag != 0x30 || !rest.is_empty() {
        return None;
    }
    let (r_tag, r, rest) = read(content)?;
    let (s_tag, s, rest) = read(rest)?;
    if r_tag != 0x02 || s_tag != 0x02 || !rest.is_empty() {
        return None;
    }
    let mut out = padded(r, size)?;
    out.extend(padded(s, size)?);
    Some(out)
}

/// `bytes` without leading zeros, padded on the left to `size`.
pub(crate) fn padded(bytes: &[u8], size: usize) -> Option<Vec<u8>> {
    let significant: Vec<u8> = bytes
        .iter()
        .copied()
        .skip_while(|byte| *byte == 0)
        .collect();
    let mut out = vec![0; size.checked_sub(significant.len())?];
    out.extend(significant);
    Some(out)
}

/// Tag, content and what follows, of a short-form or one-byte long-form element.
fn read(input: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = input.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81 => {
            let (&length, rest) = rest.split_first()?;
            (usize::from(length), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_in_each_form() {
        assert_eq!(tlv(4, &[7]), [4, 1, 7]);
        assert_eq!(tlv(4, &[0; 0x80])[..3], [4, 0x81, 0x80]);
        assert_eq!(tlv(4, &[0; 0x1234])[..4], [4, 0x82, 0x12, 0x34]);
    }

    #[test]
    fn integers_are_never_negative_nor_padded() {
        assert_eq!(unsigned(&[0, 0, 1]), [2, 1, 1]);
        assert_eq!(unsigned(&[0x80]), [2, 2, 0, 0x80]);
        assert_eq!(unsigned(&[]), [2, 1, 0]);
    }

    #[test]
    fn signatures_of_every_length() {
        let asn1 = tlv(0x30, &[unsigned(&[0xff; 4]), unsigned(&[1])].concat());
        assert_eq!(
            ecdsa_fixed(&asn1, 4),
            Some(vec![0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1])
        );
        assert_eq!(ecdsa_fixed(&asn1, 3), None);
        assert_eq!(ecdsa_fixed(&asn1[..asn1.len() - 1], 4), None);
        assert_eq!(ecdsa_fixed(&[], 4), None);
    }
}
