//! Which entries, and so which SVIDs, a set of selectors has: pure, no clock, no I/O.
