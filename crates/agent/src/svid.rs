//! Which X.509-SVIDs are due: pure, takes the time.
