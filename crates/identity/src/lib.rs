//! The field's words as types: trust domain, SPIFFE ID, selector, entry, SVID, bundle. No I/O, no async, no clock.
