//! Federation relationships.

use identity::{Bundle, EndpointProfile, EndpointUrl, FederationRelationship, TrustDomain};

use super::{Fault, FieldError, bundle, trust_domain};
use crate::spire::api::types;
use crate::spire::api::types::federation_relationship::BundleEndpointProfile;

/// Reads a new relationship, and the bundle that comes with it, if any.
///
/// # Errors
/// When a field is wrong.
pub fn federation_relationship(
    wire: &types::FederationRelationship,
) -> Result<(FederationRelationship, Option<Bundle>), FieldError> {
    let trust_domain = trust_domain("trust_domain", &wire.trust_domain)?;
    let seed = seed(&trust_domain, wire.trust_domain_bundle.as_ref())?;
    let relationship = FederationRelationship {
        endpoint_url: endpoint_url(&wire.bundle_endpoint_url)?,
        profile: profile(wire.bundle_endpoint_profile.as_ref())?,
        trust_domain,
    };
    Ok((relationship, seed))
}

/// What a caller wants changed of a relationship: what the mask names, all without a mask. What it does not name is not
/// looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FederationChange {
    /// With whom.
    pub trust_domain: TrustDomain,
    /// The new URL.
    pub endpoint_url: Option<EndpointUrl>,
    /// The new profile.
    pub profile: Option<EndpointProfile>,
    /// The new bundle. Unset: the one there is stays, for a relationship without any is no order to delete it.
    pub bundle: Option<Bundle>,
}

/// Reads a change of a relationship.
///
/// # Errors
/// When a field that the mask names is wrong.
pub fn federation_change(
    wire: &types::FederationRelationship,
    mask: Option<&types::FederationRelationshipMask>,
) -> Result<FederationChange, FieldError> {
    let trust_domain = trust_domain("trust_domain", &wire.trust_domain)?;
    let named = |field: fn(&types::FederationRelationshipMask) -> bool| mask.is_none_or(field);
    let bundle = match named(|mask| mask.trust_domain_bundle) {
        true => seed(&trust_domain, wire.trust_domain_bundle.as_ref())?,
        false => None,
    };
    Ok(FederationChange {
        trust_domain,
        endpoint_url: named(|mask| mask.bundle_endpoint_url)
            .then(|| endpoint_url(&wire.bundle_endpoint_url))
            .transpose()?,
        profile: named(|mask| mask.bundle_endpoint_profile)
            .then(|| profile(wire.bundle_endpoint_profile.as_ref()))
            .transpose()?,
        bundle,
    })
}

fn endpoint_url(url: &str) -> Result<EndpointUrl, FieldError> {
    const FIELD: &str = "bundle_endpoint_url";
    if url.is_empty() {
        return Err(FieldError::missing(FIELD));
    }
    EndpointUrl::parse(url).map_err(|error| FieldError::new(FIELD, error))
}

fn profile(wire: Option<&BundleEndpointProfile>) -> Result<EndpointProfile, FieldError> {
    const FIELD: &str = "bundle_endpoint_profile";
    match wire {
        None => Err(FieldError::new(FIELD, Fault::NoProfile)),
        Some(BundleEndpointProfile::HttpsWeb(_)) => Ok(EndpointProfile::HttpsWeb),
        Some(BundleEndpointProfile::HttpsSpiffe(profile)) => {
            let endpoint_id = identity::SpiffeId::parse(&profile.endpoint_spiffe_id)
                .map_err(|error| FieldError::new("endpoint_spiffe_id", error).within(FIELD))?;
            Ok(EndpointProfile::HttpsSpiffe { endpoint_id })
        }
    }
}

fn seed(
    trust_domain: &TrustDomain,
    wire: Option<&types::Bundle>,
) -> Result<Option<Bundle>, FieldError> {
    const FIELD: &str = "trust_domain_bundle";
    let Some(wire) = wire else { return Ok(None) };
    let bundle = bundle(wire).map_err(|error| error.within(FIELD))?;
    if bundle.trust_domain != *trust_domain {
        let fault = Fault::ForeignBundle {
            bundle: bundle.trust_domain.to_string(),
            relationship: trust_domain.to_string(),
        };
        return Err(FieldError::new(FIELD, fault));
    }
    Ok(Some(bundle))
}

/// Without the bundle, which is no part of the relationship itself.
impl From<&FederationRelationship> for types::FederationRelationship {
    fn from(relationship: &FederationRelationship) -> Self {
        let profile = match &relationship.profile {
            EndpointProfile::HttpsWeb => BundleEndpointProfile::HttpsWeb(types::HttpsWebProfile {}),
            EndpointProfile::HttpsSpiffe { endpoint_id } => {
                BundleEndpointProfile::HttpsSpiffe(types::HttpsspiffeProfile {
                    endpoint_spiffe_id: endpoint_id.to_string(),
                })
            }
        };
        Self {
            trust_domain: relationship.trust_domain.to_string(),
            bundle_endpoint_url: relationship.endpoint_url.to_string(),
            bundle_endpoint_profile: Some(profile),
            trust_domain_bundle: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use identity::SpiffeId;

    use super::*;

    fn wire() -> types::FederationRelationship {
        let relationship = FederationRelationship {
            trust_domain: TrustDomain::new("other.org").unwrap(),
            endpoint_url: EndpointUrl::parse("https://other.org/bundle").unwrap(),
            profile: EndpointProfile::HttpsSpiffe {
                endpoint_id: SpiffeId::parse("spiffe://third.org/server").unwrap(),
            },
        };
        types::FederationRelationship::from(&relationship)
    }

    #[test]
    fn f_8_a_relationship_survives_the_wire() {
        let (read, bundle) = federation_relationship(&wire()).unwrap();
        assert_eq!(types::FederationRelationship::from(&read), wire());
        assert_eq!(bundle, None);
        let mut web = wire();
        web.bundle_endpoint_profile =
            Some(BundleEndpointProfile::HttpsWeb(types::HttpsWebProfile {}));
        let (read, _) = federation_relationship(&web).unwrap();
        assert_eq!(types::FederationRelationship::from(&read), web);
    }

    #[test]
    fn each_wrong_field_is_named() {
        type Break = fn(&mut types::FederationRelationship);
        let breaks: [(&str, Break); 6] = [
            ("trust_domain", |wire| wire.trust_domain.clear()),
            ("bundle_endpoint_url", |wire| {
                wire.bundle_endpoint_url.clear();
            }),
            ("bundle_endpoint_url", |wire| {
                wire.bundle_endpoint_url = "http://other.org".into();
            }),
            ("bundle_endpoint_profile", |wire| {
                wire.bundle_endpoint_profile = None;
            }),
            ("bundle_endpoint_profile.endpoint_spiffe_id", |wire| {
                let empty = types::HttpsspiffeProfile::default();
                wire.bundle_endpoint_profile = Some(BundleEndpointProfile::HttpsSpiffe(empty));
            }),
            ("trust_domain_bundle", |wire| {
                wire.trust_domain_bundle = Some(types::Bundle {
                    trust_domain: "third.org".into(),
                    ..types::Bundle::default()
                });
            }),
        ];
        for (field, breaking) in breaks {
            let mut wire = wire();
            breaking(&mut wire);
            let error = federation_relationship(&wire).unwrap_err();
            assert_eq!(error.field, field);
            assert_eq!(federation_change(&wire, None), Err(error));
        }
    }

    #[test]
    fn what_the_mask_does_not_name_is_not_looked_at() {
        let mut wire = wire();
        wire.bundle_endpoint_profile = None;
        wire.trust_domain_bundle = Some(types::Bundle::default());
        let mask = types::FederationRelationshipMask {
            bundle_endpoint_url: true,
            ..types::FederationRelationshipMask::default()
        };
        let change = federation_change(&wire, Some(&mask)).unwrap();
        let url = change.endpoint_url.unwrap();
        assert_eq!(url.as_str(), "https://other.org/bundle");
        assert_eq!((change.profile, change.bundle), (None, None));
    }
}
