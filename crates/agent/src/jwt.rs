//! JWT-SVIDs in hand, by entry and audience.
