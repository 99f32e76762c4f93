//! Start-up of tracing and of the metric registry.
