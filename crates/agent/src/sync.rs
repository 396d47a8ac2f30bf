//! The loop that owns the cache: entries, bundles and SVIDs from the server.
