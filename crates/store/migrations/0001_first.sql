-- Sets (selectors, trust domains) are kept twice: whole in the row, sorted, one member per line, so that a row is read and
-- compared without a join; and member by member in a table of their own, to be searched by.

-- `id` is the sequence number of the change that made the row, so that lists go by creation.
CREATE TABLE entries (
    id                         INTEGER PRIMARY KEY,
    entry_id                   TEXT    NOT NULL UNIQUE,
    fingerprint                BLOB    NOT NULL UNIQUE, -- SHA-256 of parent ID, SPIFFE ID and selectors
    spiffe_id                  TEXT    NOT NULL,
    parent_id                  TEXT    NOT NULL,
    selectors                  TEXT    NOT NULL,
    selector_count             INTEGER NOT NULL,
    x509_svid_ttl              INTEGER,
    jwt_svid_ttl               INTEGER,
    federates_with             TEXT    NOT NULL,
    federates_with_count       INTEGER NOT NULL,
    admin                      BOOLEAN NOT NULL,
    downstream                 BOOLEAN NOT NULL,
    expires_at                 INTEGER,
    dns_names                  TEXT    NOT NULL,
    revision                   INTEGER NOT NULL,
    store_svid                 BOOLEAN NOT NULL,
    hint                       TEXT    NOT NULL,
    created_at                 INTEGER NOT NULL,
    disable_x509_svid_prefetch BOOLEAN NOT NULL,
    jwt_svid_include_jti       BOOLEAN NOT NULL
);
CREATE INDEX entries_spiffe_id ON entries (spiffe_id);
CREATE INDEX entries_parent_id ON entries (parent_id);
CREATE INDEX entries_expires_at ON entries (expires_at) WHERE expires_at IS NOT NULL;

CREATE TABLE entry_selectors (
    member TEXT    NOT NULL,
    owner  INTEGER NOT NULL,
    PRIMARY KEY (member, owner)
) WITHOUT ROWID;

CREATE TABLE bundles (
    id           INTEGER PRIMARY KEY,
    trust_domain TEXT    NOT NULL UNIQUE,
    sequence     INTEGER NOT NULL,
    refresh_hint INTEGER
);

CREATE TABLE entry_federates_with (
    member TEXT    NOT NULL REFERENCES bundles (trust_domain),
    owner  INTEGER NOT NULL,
    PRIMARY KEY (member, owner)
) WITHOUT ROWID;

CREATE TABLE authorities (
    bundle     INTEGER NOT NULL REFERENCES bundles (id) ON DELETE CASCADE,
    position   INTEGER NOT NULL,
    key_id     TEXT, -- of a JWT authority; an X.509 authority has none
    data       BLOB    NOT NULL, -- a certificate, or a public key
    expires_at INTEGER,
    tainted    BOOLEAN NOT NULL,
    PRIMARY KEY (bundle, position)
) WITHOUT ROWID;

CREATE TABLE agents (
    id               INTEGER PRIMARY KEY,
    spiffe_id        TEXT    NOT NULL UNIQUE,
    attestation_type TEXT    NOT NULL,
    selectors        TEXT    NOT NULL,
    selector_count   INTEGER NOT NULL,
    serial           TEXT    NOT NULL,
    expires_at       INTEGER NOT NULL,
    renewed_serial   TEXT,
    renewed_expires  INTEGER,
    can_reattest     BOOLEAN NOT NULL,
    banned           BOOLEAN NOT NULL,
    version          TEXT    NOT NULL
);
CREATE INDEX agents_expires_at ON agents (expires_at);

CREATE TABLE agent_selectors (
    member TEXT    NOT NULL,
    owner  INTEGER NOT NULL,
    PRIMARY KEY (member, owner)
) WITHOUT ROWID;

CREATE TABLE join_tokens (
    hash       BLOB    NOT NULL PRIMARY KEY, -- SHA-256 of the token
    expires_at INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE ca_journals (
    id                       INTEGER PRIMARY KEY,
    active_x509_authority_id TEXT NOT NULL,
    data                     BLOB NOT NULL
);

-- The last row is never deleted: the next sequence number follows from it.
CREATE TABLE changes (
    sequence INTEGER PRIMARY KEY,
    kind     INTEGER NOT NULL, -- 1 entry, 2 agent, 3 bundle
    subject  TEXT    NOT NULL
);
