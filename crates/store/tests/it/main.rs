//! The store's tests. What every database behind the store must do is in `contract`; what is SQLite's alone, beside it.

mod contract;
mod model;
mod sqlite;
mod support;
