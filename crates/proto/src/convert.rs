//! Two-way conversions between wire messages and `identity`'s types.
