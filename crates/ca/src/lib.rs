//! Keys, authorities and issuing: what turns an entry and a public key into an SVID. No database, no gRPC.
