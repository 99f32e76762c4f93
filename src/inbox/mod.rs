//! The receiving side of the outbox: high-water marks and gaps per stream, so that the effect is exactly once.
