//! The issuing server: who is calling, may they, node attestation, issuing, rotation.
