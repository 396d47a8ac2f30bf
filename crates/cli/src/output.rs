//! What client commands print: text as SPIRE's, or JSON as protobuf has it (names of /proto, unset fields written too).
//!
//! Everything goes through here, so that a reader who leaves early (`| head`) is no failure.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use prost::{Message, Name};
use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};
use runtime::Clock;
use serde_json::ser::{CompactFormatter, Formatter};
use time::OffsetDateTime;

static DESCRIPTORS: LazyLock<DescriptorPool> = LazyLock::new(|| {
    DescriptorPool::decode(proto::DESCRIPTORS).expect("what build.rs wrote must be readable")
});

/// How to print.
#[derive(clap::Args, Clone, Copy, Debug)]
pub(crate) struct Output {
    /// Print text for people or JSON for programs
    #[arg(
        id = "output",
        long = "output",
        value_name = "FORMAT",
        value_enum,
        default_value = "pretty"
    )]
    format: Format,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Pretty,
    Json,
}

/// Text for people: on standard output what was asked for, on standard error what went wrong.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) out: String,
    pub(crate) err: String,
}

impl From<String> for Report {
    fn from(out: String) -> Self {
        Self {
            out,
            err: String::new(),
        }
    }
}

impl Output {
    /// Whether JSON is wanted.
    pub(crate) fn is_json(self) -> bool {
        self.format == Format::Json
    }

    /// Prints a server's or an agent's answer: as JSON, or by `pretty`.
    pub(crate) fn print<M: Message + Name>(
        self,
        answer: &M,
        pretty: impl FnOnce(&M) -> Report,
    ) -> Result<()> {
        match self.format {
            Format::Pretty => say(&pretty(answer)),
            Format::Json => say(&line(json(answer)?).into()),
        }
    }

    /// Prints two answers: as a JSON array, or by `pretty`.
    pub(crate) fn print_both<A: Message + Name, B: Message + Name>(
        self,
        first: &A,
        second: &B,
        pretty: impl FnOnce(&A, &B) -> Report,
    ) -> Result<()> {
        match self.format {
            Format::Pretty => say(&pretty(first, second)),
            Format::Json => say(&line(format!("[{},{}]", json(first)?, json(second)?)).into()),
        }
    }

    /// Prints what is no message of /proto: as JSON, or by `pretty`.
    pub(crate) fn print_value(
        self,
        value: &impl serde::Serialize,
        pretty: impl FnOnce() -> Report,
    ) -> Result<()> {
        match self.format {
            Format::Pretty => say(&pretty()),
            Format::Json => say(&line(serde_json::to_string(value)?).into()),
        }
    }
}

/// A word to who asked for a lifetime and got a shorter one; nothing otherwise.
pub(crate) fn capped(what: &str, wanted: Option<Duration>, expires_at: SystemTime) -> Report {
    let now = Clock::system().now();
    let left = expires_at.duration_since(now).unwrap_or_default();
    // Issuing takes a moment, and the wire has whole seconds.
    let short = wanted.is_some_and(|wanted| left + Duration::from_secs(5) < wanted);
    let err = if short {
        let until = moment_of(expires_at);
        format!("{what} lifetime was capped shorter than specified ttl; expires {until}\n")
    } else {
        String::new()
    };
    Report {
        out: String::new(),
        err,
    }
}

/// Prints text.
pub(crate) fn say(report: &Report) -> Result<()> {
    write(&mut io::stdout().lock(), &report.out)?;
    write(&mut io::stderr().lock(), &report.err)
}

/// A message as protobuf's JSON.
pub(crate) fn json<M: Message + Name>(message: &M) -> Result<String> {
    let name = M::full_name();
    let descriptor = DESCRIPTORS
        .get_message_by_name(&name)
        .with_context(|| format!("{name} has no descriptor"))?;
    let message = DynamicMessage::decode(descriptor, &*message.encode_to_vec())?;
    let options = SerializeOptions::new()
        .use_proto_field_name(true)
        .skip_default_fields(false);
    let mut json = serde_json::Serializer::with_formatter(Vec::new(), WholeNumbers);
    message.serialize_with_options(&mut json, &options)?;
    Ok(String::from_utf8(json.into_inner())?)
}

/// `1 entry`, `2 entries`.
pub(crate) fn counted<'a>(count: i64, one: &'a str, several: &'a str) -> String {
    let noun = if count == 1 { one } else { several };
    format!("{count} {noun}")
}

/// Unix seconds as SPIRE prints a time, in UTC: `2026-01-02 15:04:05 +0000 UTC`.
pub(crate) fn moment(unix_seconds: i64) -> String {
    let Ok(time) = OffsetDateTime::from_unix_timestamp(unix_seconds) else {
        return format!("{unix_seconds} seconds after 1970");
    };
    let (date, (hour, minute, second)) = (time.date(), time.to_hms());
    let month = u8::from(date.month());
    let mut text = format!("{:04}-{month:02}-{:02} ", date.year(), date.day());
    let _ = write!(text, "{hour:02}:{minute:02}:{second:02} +0000 UTC");
    text
}

/// A time as SPIRE prints it; see [`moment`].
pub(crate) fn moment_of(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    moment(i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

/// Protobuf has only doubles for a token's claims; a whole one is written as people and programs expect a number.
struct WholeNumbers;

impl Formatter for WholeNumbers {
    fn write_f64<W: ?Sized + Write>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        // Below this, the shortest decimal form has no exponent.
        if value.fract() == 0.0 && value.abs() < 1e16 {
            write!(writer, "{value:.0}")
        } else {
            CompactFormatter.write_f64(writer, value)
        }
    }
}

fn line(mut text: String) -> String {
    text.push('\n');
    text
}

fn write(stream: &mut impl Write, text: &str) -> Result<()> {
    let written = stream
        .write_all(text.as_bytes())
        .and_then(|()| stream.flush());
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot print")
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;
    use proto::spire::api::server::entry::v1::CountEntriesResponse;
    use proto::spire::api::types;
    use proto::workload;

    use super::*;

    #[test]
    fn json_has_the_names_of_proto_and_writes_unset_fields_too() {
        assert_snapshot!(json(&CountEntriesResponse::default()).unwrap(), @r#"{"count":0}"#);
        let entry = types::Entry {
            id: "e-1".into(),
            x509_svid_ttl: 60,
            created_at: 1_700_000_000,
            ..Default::default()
        };
        assert_snapshot!(json(&entry).unwrap());
        // The package without a name.
        let svid = workload::X509svid {
            spiffe_id: "spiffe://example.org/web".into(),
            x509_svid: b"\x00\xff"[..].into(),
            ..Default::default()
        };
        assert_snapshot!(json(&svid).unwrap());
    }

    #[test]
    fn whole_numbers_are_written_as_such() {
        let claims = serde_json::json!({"exp": 1_900_000_000, "half": 0.5, "less": -7});
        let valid = workload::ValidateJwtsvidResponse {
            spiffe_id: String::new(),
            claims: claims.as_object().map(proto::convert::wire_claims),
        };
        assert_snapshot!(
            json(&valid).unwrap(),
            @r#"{"spiffe_id":"","claims":{"exp":1900000000,"half":0.5,"less":-7}}"#
        );
    }

    #[test]
    fn times_are_gos() {
        assert_eq!(moment(0), "1970-01-01 00:00:00 +0000 UTC");
        assert_eq!(moment(1_767_366_245), "2026-01-02 15:04:05 +0000 UTC");
        assert_eq!(moment(i64::MAX), "9223372036854775807 seconds after 1970");
    }

    #[test]
    fn a_reader_who_leaves_early_is_no_failure() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        assert!(write(&mut Closed, "text").is_ok());
    }
}
