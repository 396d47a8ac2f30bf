//! `api fetch jwt` and `api validate jwt`.

use std::fmt::Write as _;

use anyhow::{Context, Result};
use identity::SpiffeId;
use proto::convert;
use proto::workload::{
    JwtBundlesRequest, JwtBundlesResponse, JwtsvidRequest, JwtsvidResponse, ValidateJwtsvidRequest,
    ValidateJwtsvidResponse,
};
use tonic::Response;

use super::{Asking, request};
use crate::output::{Output, Report};

/// `api fetch jwt`
#[derive(clap::Args, Debug)]
pub(super) struct Fetch {
    /// For whom the SVIDs are; several parted by commas, or given again
    #[arg(
        long = "audience",
        value_name = "AUDIENCE",
        value_delimiter = ',',
        required = true
    )]
    audience: Vec<String>,
    /// Only this one of the caller's identities
    #[arg(long = "spiffeID", value_name = "ID")]
    spiffe_id: Option<SpiffeId>,
    #[command(flatten)]
    asking: Asking,
    #[command(flatten)]
    output: Output,
}

/// `api validate …`
#[derive(clap::Subcommand, Debug)]
pub(crate) enum ValidateCommand {
    /// Validate a JWT-SVID
    Jwt(Validate),
}

/// `api validate jwt`
#[derive(clap::Args, Debug)]
pub(crate) struct Validate {
    /// For whom the SVID must be
    #[arg(long = "audience", value_name = "AUDIENCE", required = true)]
    audience: String,
    /// The JWT-SVID
    #[arg(long = "svid", value_name = "TOKEN", required = true)]
    svid: String,
    #[command(flatten)]
    asking: Asking,
    #[command(flatten)]
    output: Output,
}

impl Fetch {
    pub(super) async fn run(self) -> Result<()> {
        let mut client = self.asking.client().await?;
        let bundles = self
            .asking
            .answer(async {
                let mut stream = client
                    .fetch_jwt_bundles(request(JwtBundlesRequest {}))
                    .await?
                    .into_inner();
                stream.message().await.map(Response::new)
            })
            .await
            .context("failed to receive JWT bundles")?
            .unwrap_or_default();
        let wanted = JwtsvidRequest {
            audience: self.audience.clone(),
            spiffe_id: self
                .spiffe_id
                .as_ref()
                .map(SpiffeId::to_string)
                .unwrap_or_default(),
        };
        let svids = self
            .asking
            .answer(client.fetch_jwtsvid(request(wanted)))
            .await?;
        self.output.print_both(&svids, &bundles, fetched)
    }
}

impl Validate {
    pub(super) async fn run(self) -> Result<()> {
        let mut client = self.asking.client().await?;
        let wanted = ValidateJwtsvidRequest {
            audience: self.audience.clone(),
            svid: self.svid.clone(),
        };
        let valid = self
            .asking
            .answer(client.validate_jwtsvid(request(wanted)))
            .await
            .context("SVID is not valid")?;
        self.output.print(&valid, validated)
    }
}

fn fetched(svids: &JwtsvidResponse, bundles: &JwtBundlesResponse) -> Report {
    let mut text = String::new();
    for svid in &svids.svids {
        let _ = writeln!(text, "token({}):\n\t{}", svid.spiffe_id, svid.svid);
        if !svid.hint.is_empty() {
            let _ = writeln!(text, "hint({}):\n\t{}", svid.spiffe_id, svid.hint);
        }
    }
    for (trust_domain, jwks) in &bundles.bundles {
        let jwks = String::from_utf8_lossy(jwks);
        let _ = writeln!(text, "bundle({trust_domain}):\n\t{jwks}");
    }
    text.into()
}

fn validated(valid: &ValidateJwtsvidResponse) -> Report {
    let claims = valid
        .claims
        .as_ref()
        .map(convert::claims)
        .unwrap_or_default();
    let claims = serde_json::Value::Object(claims);
    let id = &valid.spiffe_id;
    format!("SVID is valid.\nSPIFFE ID : {id}\nClaims    : {claims}\n").into()
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;
    use proto::workload::Jwtsvid;
    use serde_json::json;

    use super::*;

    #[test]
    fn jwt_svids_are_printed_as_spire_prints_them() {
        let svids = JwtsvidResponse {
            svids: vec![Jwtsvid {
                spiffe_id: "spiffe://example.org/web".into(),
                svid: "header.claims.signature".into(),
                hint: "internal".into(),
            }],
        };
        let bundles = JwtBundlesResponse {
            bundles: [("spiffe://example.org".to_owned(), r#"{"keys":[]}"#.into())].into(),
        };
        assert_snapshot!(fetched(&svids, &bundles).out);
    }

    #[test]
    fn a_valid_svid_is_printed_as_spire_prints_it() {
        let claims = json!({"aud": ["a"], "exp": 1_900_000_000, "sub": "spiffe://example.org/web"});
        let valid = ValidateJwtsvidResponse {
            spiffe_id: "spiffe://example.org/web".into(),
            claims: claims.as_object().map(convert::wire_claims),
        };
        assert_snapshot!(validated(&valid).out);
    }
}
