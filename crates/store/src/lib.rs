//! The datastore: entries, agents, join tokens, bundles, the CA journal and the change log. The only SQL.
