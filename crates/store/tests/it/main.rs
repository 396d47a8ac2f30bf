//! The store's tests. What every database behind the store must do is in `contract`; what is SQLite's alone, beside it.

#![expect(clippy::unwrap_used, reason = "a test may stop at once")]

mod contract;
mod model;
mod sqlite;
mod support;
