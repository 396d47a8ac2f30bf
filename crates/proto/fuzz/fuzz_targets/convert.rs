#![no_main]
//! Any message on the wire: no conversion panics, and what one takes is written and taken again, the same.

use std::fmt::Debug;

use identity::{Bundle, PrivateKey, RegistrationEntry};
use libfuzzer_sys::fuzz_target;
use prost::Message;
use proto::convert;
use proto::spire::api::types;

/// The input as a message, if it is one.
fn message<M: Message + Default>(input: &[u8]) -> Option<M> {
    M::decode(input).ok()
}

fn comes_back<W, T, E>(wire: &W, read: impl Fn(&W) -> Result<T, E>)
where
    W: for<'a> From<&'a T>,
    T: Debug + PartialEq,
    E: Debug,
{
    if let Ok(value) = read(wire) {
        let again = read(&W::from(&value)).expect("what we write must be readable");
        assert_eq!(again, value);
    }
}

fn entry(input: &[u8]) {
    let Some(wire) = message::<types::Entry>(input) else {
        return;
    };
    comes_back::<_, RegistrationEntry, _>(&wire, convert::entry);
    if let Ok(entry) = convert::entry(&wire) {
        let _ = entry.validate(entry.spiffe_id.trust_domain());
        let updated = convert::updated_entry(&entry, &wire, None);
        assert_eq!(updated.as_ref(), Ok(&entry), "the same wants no change");
    }
    let mut masked = wire.clone();
    convert::mask_entry(&mut masked, Some(&types::EntryMask::default()));
    assert_eq!(masked.id, wire.id);
}

fn federation(input: &[u8]) {
    let Some(wire) = message::<types::FederationRelationship>(input) else {
        return;
    };
    let read = convert::federation_relationship(&wire);
    let changed = convert::federation_change(&wire, None);
    assert_eq!(read.is_ok(), changed.is_ok(), "{read:?} {changed:?}");
}

fn svids(input: &[u8], key: &PrivateKey) {
    if let Some(wire) = message::<types::X509svid>(input) {
        let svid = convert::x509_svid(&wire, key.clone());
        assert!(svid.is_err(), "nobody else has this key");
    }
    if let Some(wire) = message::<types::Jwtsvid>(input)
        && let Ok(svid) = convert::jwt_svid(&wire)
    {
        assert_eq!(types::Jwtsvid::from(&svid).token, wire.token);
    }
}

fn claims(input: &[u8]) {
    if let Some(wire) = message(input) {
        let claims = convert::claims(&wire);
        let again = convert::claims(&convert::wire_claims(&claims));
        assert_eq!(again, claims);
    }
}

thread_local! {
    static KEY: PrivateKey = PrivateKey::generate(identity::KeyType::EcP256).expect("a key");
}

fuzz_target!(|input: &[u8]| {
    let Some((kind, input)) = input.split_first() else {
        return;
    };
    match kind % 5 {
        0 => entry(input),
        1 => {
            if let Some(wire) = message::<types::Bundle>(input) {
                comes_back::<_, Bundle, _>(&wire, convert::bundle);
            }
        }
        2 => federation(input),
        3 => KEY.with(|key| svids(input, key)),
        _ => claims(input),
    }
});
