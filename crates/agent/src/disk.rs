//! What survives a restart: the sealed copy of entries, SVIDs and bundles.
