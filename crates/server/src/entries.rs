//! Which entries an agent is authorised for.
