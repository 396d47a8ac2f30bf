CREATE TABLE federation_relationships (
    id                 INTEGER PRIMARY KEY AUTOINCREMENT,
    trust_domain       TEXT    NOT NULL UNIQUE,
    endpoint_url       TEXT    NOT NULL,
    endpoint_spiffe_id TEXT -- of the profile https_spiffe; https_web has none
);
