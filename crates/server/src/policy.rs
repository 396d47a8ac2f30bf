//! Who may call what: one table.
//!
//! What the table does not name nobody may call.

/// A set of callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Who(u8);

impl Who {
    /// All, known or not.
    pub(crate) const ANYONE: Self = Self(1);
    /// Processes on this machine.
    pub(crate) const LOCAL: Self = Self(2);
    /// Admins.
    pub(crate) const ADMIN: Self = Self(4);
    /// Nested servers.
    pub(crate) const DOWNSTREAM: Self = Self(8);
    /// Attested agents.
    pub(crate) const AGENT: Self = Self(16);

    const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether `who` is among them.
    pub(crate) const fn includes(self, who: Self) -> bool {
        self.0 & who.0 == who.0
    }
}

/// Who may call the method of this path, as in `/spire.api.server.agent.v1.Agent/RenewAgent`.
pub(crate) fn who_may_call(path: &str) -> Option<Who> {
    let (service, method) = path.strip_prefix('/')?.split_once('/')?;
    let (_, methods) = SERVICES.iter().find(|(name, _)| *name == service)?;
    let (_, who) = methods.iter().find(|(name, _)| *name == method)?;
    Some(*who)
}

/// Why a service of the table is not served yet, for those that may know.
pub(crate) fn not_served(path: &str) -> Option<&'static str> {
    let (service, _) = path.strip_prefix('/')?.split_once('/')?;
    let (_, why) = NOT_SERVED.iter().find(|(name, _)| *name == service)?;
    Some(why)
}

const NOT_SERVED: &[(&str, &str)] = &[(
    "spire.api.server.localauthority.v1.LocalAuthority",
    "authorities cannot be steered by hand yet; they are prepared and activated in time by themselves",
)];

const ANYONE: Who = Who::ANYONE;
const LOCAL: Who = Who::LOCAL;
const AGENT: Who = Who::AGENT;
const DOWNSTREAM: Who = Who::DOWNSTREAM;
const OPERATOR: Who = Who::LOCAL.or(Who::ADMIN);

/// Services and their methods.
type Table = &'static [(&'static str, &'static [(&'static str, Who)])];

/// As SPIRE's default policy has it.
const SERVICES: Table = &[
    (
        "spire.api.server.agent.v1.Agent",
        &[
            ("AttestAgent", ANYONE),
            ("BanAgent", OPERATOR),
            ("CountAgents", OPERATOR),
            ("CreateJoinToken", OPERATOR),
            ("DeleteAgent", OPERATOR),
            ("GetAgent", OPERATOR),
            ("ListAgents", OPERATOR),
            ("PostStatus", AGENT),
            ("RenewAgent", AGENT),
        ],
    ),
    (
        "spire.api.server.bundle.v1.Bundle",
        &[
            ("AppendBundle", OPERATOR),
            ("BatchCreateFederatedBundle", OPERATOR),
            ("BatchDeleteFederatedBundle", OPERATOR),
            ("BatchSetFederatedBundle", OPERATOR),
            ("BatchUpdateFederatedBundle", OPERATOR),
            ("CountBundles", OPERATOR),
            ("GetBundle", ANYONE),
            ("GetFederatedBundle", OPERATOR.or(AGENT)),
            ("ListFederatedBundles", OPERATOR),
            ("PublishJWTAuthority", DOWNSTREAM),
            ("PublishWITAuthority", DOWNSTREAM),
        ],
    ),
    ("spire.api.server.debug.v1.Debug", &[("GetInfo", LOCAL)]),
    (
        "spire.api.server.entry.v1.Entry",
        &[
            ("BatchCreateEntry", OPERATOR),
            ("BatchDeleteEntry", OPERATOR),
            ("BatchUpdateEntry", OPERATOR),
            ("CountEntries", OPERATOR),
            ("GetAuthorizedEntries", AGENT),
            ("GetEntry", OPERATOR),
            ("ListEntries", OPERATOR),
            ("SyncAuthorizedEntries", AGENT),
        ],
    ),
    (
        "spire.api.server.localauthority.v1.LocalAuthority",
        &[
            ("ActivateJWTAuthority", OPERATOR),
            ("ActivateWITAuthority", OPERATOR),
            ("ActivateX509Authority", OPERATOR),
            ("GetJWTAuthorityState", OPERATOR),
            ("GetWITAuthorityState", OPERATOR),
            ("GetX509AuthorityState", OPERATOR),
            ("PrepareJWTAuthority", OPERATOR),
            ("PrepareWITAuthority", OPERATOR),
            ("PrepareX509Authority", OPERATOR),
            ("RevokeJWTAuthority", OPERATOR),
            ("RevokeWITAuthority", OPERATOR),
            ("RevokeX509Authority", OPERATOR),
            ("RevokeX509UpstreamAuthority", OPERATOR),
            ("TaintJWTAuthority", OPERATOR),
            ("TaintWITAuthority", OPERATOR),
            ("TaintX509Authority", OPERATOR),
            ("TaintX509UpstreamAuthority", OPERATOR),
        ],
    ),
    (
        "spire.api.server.logger.v1.Logger",
        &[
            ("GetLogger", LOCAL),
            ("ResetLogLevel", LOCAL),
            ("SetLogLevel", LOCAL),
        ],
    ),
    (
        "spire.api.server.svid.v1.SVID",
        &[
            ("BatchNewWITSVID", AGENT),
            ("BatchNewX509SVID", AGENT),
            ("MintJWTSVID", OPERATOR),
            ("MintWITSVID", OPERATOR),
            ("MintX509SVID", OPERATOR),
            ("NewDownstreamX509CA", DOWNSTREAM),
            ("NewJWTSVID", AGENT),
        ],
    ),
    (
        "spire.api.server.trustdomain.v1.TrustDomain",
        &[
            ("BatchCreateFederationRelationship", OPERATOR),
            ("BatchDeleteFederationRelationship", OPERATOR),
            ("BatchUpdateFederationRelationship", OPERATOR),
            ("GetFederationRelationship", OPERATOR),
            ("ListFederationRelationships", OPERATOR),
            ("RefreshBundle", OPERATOR),
        ],
    ),
    (
        "grpc.health.v1.Health",
        &[("Check", LOCAL), ("Watch", LOCAL)],
    ),
];
