//! The durable, ordered queue of opaque envelopes, and the ledger of what was lost.
