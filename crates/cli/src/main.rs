//! The one binary, `signet`: arguments in, text out.

fn main() {}
