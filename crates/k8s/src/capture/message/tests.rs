//! The bytes: those the kernel was seen to take, and what holds for all of them.

use std::net::IpAddr;

use proptest::collection::vec;
use proptest::prelude::*;

use super::super::kernel::{self, Error};
use super::super::rules::Outbound;
use super::super::{Interface, Net};
use super::*;

fn rules() -> Ruleset {
    let net = |text: &str| text.parse::<Net>().expect(text);
    Ruleset {
        envoy_user: 1337,
        app_ports: vec![8080],
        inbound_port: 15006,
        outbound: vec![Outbound {
            net: net("10.1.2.3"),
            port: 80,
            local_port: 15001,
        }],
        skip_nets: vec![net("10.0.0.0/9"), net("fc00::/7"), net("::/0")],
        skip_interfaces: Vec::new(),
    }
}

/// A batch taken apart again, by the format's own rules.
fn show(batch: &Batch) -> String {
    let mut text = String::new();
    for (message, step) in messages(&batch.bytes).iter().zip(&batch.steps) {
        let kind = u16::from_ne_bytes([message[4], message[5]]);
        let flags = u16::from_ne_bytes([message[6], message[7]]);
        text += &format!(
            "# {step}\n{kind:#06x} {flags:#05x} {}\n",
            hex(&message[16..20])
        );
        tree(&message[20..], 1, &mut text);
    }
    text
}

fn messages(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let length = u32::from_ne_bytes(bytes[..4].try_into().expect("four bytes")) as usize;
        assert!(length >= 20 && length.is_multiple_of(4), "length {length}");
        all.push(&bytes[..length]);
        bytes = &bytes[length..];
    }
    all
}

fn tree(mut bytes: &[u8], depth: usize, text: &mut String) {
    while !bytes.is_empty() {
        let length = usize::from(u16::from_ne_bytes([bytes[0], bytes[1]]));
        let kind = u16::from_ne_bytes([bytes[2], bytes[3]]);
        assert!(length >= 4, "length {length}");
        let value = &bytes[4..length];
        let indent = "  ".repeat(depth);
        let number = kind & !NESTED;
        if kind & NESTED == 0 {
            let printed = String::from_utf8_lossy(value);
            let printed = printed.trim_end_matches('\0');
            let name = printed.len() > 1 && printed.bytes().all(|b| b.is_ascii_alphanumeric());
            let told = if name { printed.to_owned() } else { hex(value) };
            *text += &format!("{indent}{number}: {told}\n");
        } else {
            *text += &format!("{indent}{number}:\n");
            tree(value, depth + 1, text);
        }
        bytes = &bytes[length.next_multiple_of(4)..];
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What was compared, expression by expression, with what `nft` itself sends for the same rules.
#[test]
fn the_bytes_of_every_kind_of_rule() {
    insta::assert_snapshot!(show(&replace(&rules())));
}

#[test]
fn removing_needs_nothing_to_be_there() {
    let batch = remove();
    let expected = [
        "commit",
        "add table inet signet",
        "delete table inet signet",
        "commit",
    ];
    assert_eq!(batch.steps, expected);
    assert_eq!(messages(&batch.bytes).len(), 4);
}

fn answer(errno: i32, number: u32) -> Vec<u8> {
    let mut bytes = 36_u32.to_ne_bytes().to_vec();
    bytes.extend(2_u16.to_ne_bytes());
    bytes.extend([0; 2]);
    bytes.extend(number.to_ne_bytes());
    bytes.extend([0; 4]);
    bytes.extend((-errno).to_ne_bytes());
    bytes.extend([0; 16]);
    bytes
}

#[test]
fn a_refusal_names_the_rule() {
    let batch = replace(&rules());
    let told = |errno: i32, number: u32| {
        let both = [answer(0, 2), answer(errno, number)].concat();
        kernel::read(&both, &batch).map_err(|error| error.to_string())
    };
    assert_eq!(told(0, 3), Ok(()));
    let last = u32::try_from(batch.steps.len() - 2).expect("few");
    let rule = told(2, last).expect_err("ENOENT");
    assert!(
        rule.contains(
            "`add rule inet signet outbound ip daddr 10.1.2.3 tcp dport 80 redirect to :15001`"
        ),
        "{rule}"
    );
    assert!(told(1, 0).expect_err("EPERM").contains("NET_ADMIN"));
    assert!(
        told(95, 0)
            .expect_err("EOPNOTSUPP")
            .contains("no nf_tables")
    );
    for bad in [&[0_u8; 3][..], &[255; 20], &[0; 16]] {
        assert!(matches!(kernel::read(bad, &batch), Err(Error::NoAnswer)));
    }
}

fn any_net() -> impl Strategy<Value = Net> {
    (any::<IpAddr>(), 0..=128_u8).prop_map(|(address, bits)| {
        let most = if address.is_ipv4() { 32 } else { 128 };
        // The error names the network that is meant.
        let text = format!("{address}/{}", bits.min(most));
        match text.parse::<Net>() {
            Ok(net) => net,
            Err(super::super::NetError::HostBits { meant, .. }) => meant,
            Err(error) => panic!("{text}: {error}"),
        }
    })
}

prop_compose! {
    fn any_rules()(
        envoy_user in any::<u32>(),
        app_ports in vec(1..=u16::MAX, 0..20),
        inbound_port in 1..=u16::MAX,
        outbound in vec((any_net(), 1..=u16::MAX, 1..=u16::MAX), 0..40),
        skip_nets in vec(any_net(), 0..5),
        interfaces in vec("[a-z]{1,13}[0-9]", 0..3),
    ) -> Ruleset {
        Ruleset {
            envoy_user,
            app_ports,
            inbound_port,
            outbound: outbound.into_iter().map(|(net, port, local_port)| Outbound { net, port, local_port }).collect(),
            skip_nets,
            skip_interfaces: interfaces.iter().map(|name| name.parse::<Interface>().expect("a name")).collect(),
        }
    }
}

proptest! {
    /// Well-formed to the last byte, one message per rule in the order of the text, numbered without gaps.
    #[test]
    fn every_ruleset_is_a_whole_batch(rules in any_rules()) {
        let batch = replace(&rules);
        let all = messages(&batch.bytes);
        prop_assert_eq!(all.len(), batch.steps.len());
        for (index, message) in all.iter().enumerate() {
            let number = u32::from_ne_bytes(message[8..12].try_into().expect("four bytes"));
            prop_assert_eq!(number as usize, index);
        }
        let _ = show(&batch);
        let text = rules.to_string();
        let printed: Vec<&str> = text.lines().map(str::trim).filter(|line| line.ends_with("return") || line.contains("redirect")).collect();
        let sent: Vec<&str> = batch.steps.iter().filter_map(|step| step.strip_prefix("add rule inet signet ")?.split_once(' ').map(|(_, rule)| rule)).collect();
        prop_assert_eq!(printed, sent);
    }
}
