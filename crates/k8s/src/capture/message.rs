//! Rules as nfnetlink messages for nf_tables (the kernel's `linux/netfilter/nf_tables.h` and `nfnetlink.h`).
//!
//! Everything is big-endian inside attributes, and of the machine's order in headers and in what is compared with a
//! register that the kernel fills itself (a user ID).

use std::net::IpAddr;

use super::net::Net;
use super::rules::{Chain, Hook, Match, PRIORITY, Rule, Ruleset, TABLE, Verdict};

const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEW_TABLE: u16 = 0;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const NEW_RULE: u16 = 6;

const FAMILY_NONE: u8 = 0;
const FAMILY_INET: u8 = 1;
const FAMILY_IPV4: u8 = 2;
const FAMILY_IPV6: u8 = 10;

const REQUEST: u16 = 0x1;
const ACK: u16 = 0x4;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;

const NESTED: u16 = 0x8000;
const HEADER: usize = 16;

const REGISTER_VERDICT: u32 = 0;
const REGISTER: u32 = 1;
const META_IIFNAME: u32 = 6;
const META_OIFNAME: u32 = 7;
const META_SKUID: u32 = 10;
const META_NFPROTO: u32 = 15;
const META_L4PROTO: u32 = 16;
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;
const TCP: u8 = 6;
const RETURN: i32 = -5;
/// The redirection names a port.
const RANGE_PORT: u32 = 2;
const INTERFACE_LENGTH: usize = 16;

/// Messages that take effect together or not at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Batch {
    pub(super) bytes: Vec<u8>,
    /// What the message with this number does, from 0; the kernel names the number when it refuses one.
    pub(super) steps: Vec<String>,
}

/// The rules in place of all that were in our table.
pub(super) fn replace(rules: &Ruleset) -> Batch {
    let mut batch = Batch::clearing();
    batch.table(NEW_TABLE, CREATE);
    for chain in rules.chains() {
        batch.chain(&chain);
        for rule in &chain.rules {
            batch.rule(chain.name, rule);
        }
    }
    batch.finish()
}

/// Our table away.
pub(super) fn remove() -> Batch {
    Batch::clearing().finish()
}

impl Batch {
    /// Makes the table, so that taking it away never fails, and takes it away.
    fn clearing() -> Self {
        let mut batch = Self {
            bytes: Vec::new(),
            steps: Vec::new(),
        };
        batch.put(BATCH_BEGIN, 0, FAMILY_NONE, &[], "commit".to_owned());
        batch.table(NEW_TABLE, CREATE);
        // One answer is enough, and comes only when all is done; refusals are told without being asked for.
        batch.table(DELETE_TABLE, ACK);
        batch
    }

    fn table(&mut self, kind: u16, flags: u16) {
        let body = text(1, TABLE);
        let what = if kind == NEW_TABLE { "add" } else { "delete" };
        self.put_nft(kind, flags, &body, format!("{what} table inet {TABLE}"));
    }

    fn chain(&mut self, chain: &Chain) {
        let number: u32 = match chain.hook {
            Hook::Prerouting => 0,
            Hook::Output => 3,
        };
        let hook = [word(1, number), attribute(2, &PRIORITY.to_be_bytes())].concat();
        let body = [
            text(1, TABLE),
            text(3, chain.name),
            attribute(4 | NESTED, &hook),
            // Accept.
            word(5, 1),
            text(7, "nat"),
        ]
        .concat();
        let step = format!("add chain inet {TABLE} {}", chain.name);
        self.put_nft(NEW_CHAIN, CREATE, &body, step);
    }

    fn rule(&mut self, chain: &str, rule: &Rule) {
        let body = [
            text(1, TABLE),
            text(2, chain),
            attribute(4 | NESTED, &expressions(rule)),
        ]
        .concat();
        let step = format!("add rule inet {TABLE} {chain} {rule}");
        self.put_nft(NEW_RULE, CREATE | APPEND, &body, step);
    }

    fn put_nft(&mut self, kind: u16, flags: u16, body: &[u8], step: String) {
        self.put((SUBSYSTEM << 8) | kind, flags, FAMILY_INET, body, step);
    }

    fn put(&mut self, kind: u16, flags: u16, family: u8, body: &[u8], step: String) {
        // The subsystem of a whole batch stands in the field that other messages leave zero.
        let resource = if family == FAMILY_NONE { SUBSYSTEM } else { 0 };
        let length = u32::try_from(HEADER + 4 + body.len()).unwrap_or(u32::MAX);
        let number = u32::try_from(self.steps.len()).unwrap_or(u32::MAX);
        let bytes = &mut self.bytes;
        bytes.extend(length.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend((flags | REQUEST).to_ne_bytes());
        bytes.extend(number.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend([family, 0]);
        bytes.extend(resource.to_be_bytes());
        bytes.extend(body);
        self.steps.push(step);
    }

    fn finish(mut self) -> Self {
        self.put(BATCH_END, 0, FAMILY_NONE, &[], "commit".to_owned());
        self
    }
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    let mut bytes = Vec::with_capacity(value.len() + 8);
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn text(kind: u16, value: &str) -> Vec<u8> {
    attribute(kind, &[value.as_bytes(), &[0]].concat())
}

fn word(kind: u16, value: u32) -> Vec<u8> {
    attribute(kind, &value.to_be_bytes())
}

/// A value inside a value: what is compared, masked or loaded.
fn data(kind: u16, value: &[u8]) -> Vec<u8> {
    attribute(kind | NESTED, &attribute(1, value))
}

fn expression(name: &str, body: &[u8]) -> Vec<u8> {
    let inner = [text(1, name), attribute(2 | NESTED, body)].concat();
    attribute(1 | NESTED, &inner)
}

fn expressions(rule: &Rule) -> Vec<u8> {
    let mut all = Vec::new();
    for one in &rule.matches {
        all.extend(condition(one));
    }
    match rule.verdict {
        Verdict::Return => {
            let verdict = attribute(2 | NESTED, &attribute(1, &RETURN.to_be_bytes()));
            let load = [word(1, REGISTER_VERDICT), attribute(2 | NESTED, &verdict)].concat();
            all.extend(expression("immediate", &load));
        }
        Verdict::Redirect(port) => {
            let load = [word(1, REGISTER), data(2, &port.to_be_bytes())].concat();
            all.extend(expression("immediate", &load));
            let to = [word(1, REGISTER), word(3, RANGE_PORT)].concat();
            all.extend(expression("redir", &to));
        }
    }
    all
}

fn condition(one: &Match) -> Vec<u8> {
    match one {
        Match::InputInterface(name) => interface(META_IIFNAME, name.as_str()),
        Match::OutputInterface(name) => interface(META_OIFNAME, name.as_str()),
        Match::User(user) => [meta(META_SKUID), equal(&user.to_ne_bytes())].concat(),
        Match::Source(net) => address(net, 12, 8),
        Match::Destination(net) => address(net, 16, 24),
        Match::Port(port) => [
            meta(META_L4PROTO),
            equal(&[TCP]),
            payload(TRANSPORT_HEADER, 2, 2),
            equal(&port.to_be_bytes()),
        ]
        .concat(),
    }
}

fn interface(key: u32, name: &str) -> Vec<u8> {
    let mut padded = name.as_bytes().to_vec();
    padded.resize(INTERFACE_LENGTH, 0);
    [meta(key), equal(&padded)].concat()
}

/// The family, then the address at its place in a header of that family.
fn address(net: &Net, at_v4: u32, at_v6: u32) -> Vec<u8> {
    let (family, at) = match net.address() {
        IpAddr::V4(_) => (FAMILY_IPV4, at_v4),
        IpAddr::V6(_) => (FAMILY_IPV6, at_v6),
    };
    let mut all = [meta(META_NFPROTO), equal(&[family])].concat();
    if net.bits() == 0 {
        return all;
    }
    let octets = net.octets();
    let length = u32::try_from(octets.len()).unwrap_or(u32::MAX);
    all.extend(payload(NETWORK_HEADER, at, length));
    if net.single().is_none() {
        all.extend(mask(&net.mask()));
    }
    all.extend(equal(&octets));
    all
}

fn meta(key: u32) -> Vec<u8> {
    expression("meta", &[word(1, REGISTER), word(2, key)].concat())
}

fn payload(base: u32, offset: u32, length: u32) -> Vec<u8> {
    let body = [
        word(1, REGISTER),
        word(2, base),
        word(3, offset),
        word(4, length),
    ];
    expression("payload", &body.concat())
}

fn mask(mask: &[u8]) -> Vec<u8> {
    let length = u32::try_from(mask.len()).unwrap_or(u32::MAX);
    let body = [
        word(1, REGISTER),
        word(2, REGISTER),
        word(3, length),
        data(4, mask),
        data(5, &vec![0; mask.len()]),
    ];
    expression("bitwise", &body.concat())
}

fn equal(value: &[u8]) -> Vec<u8> {
    // Operation 0 is "equal".
    let body = [word(1, REGISTER), word(2, 0), data(3, value)];
    expression("cmp", &body.concat())
}

#[cfg(test)]
mod tests;
