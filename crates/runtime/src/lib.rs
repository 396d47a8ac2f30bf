//! What every long-running program here shares: clock, tasks, readiness, logs, metrics, listeners, private files, config reading. Knows no SPIFFE ID.
