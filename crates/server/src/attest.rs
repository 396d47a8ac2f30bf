//! Node attestation: how an agent proves on which node it runs.
