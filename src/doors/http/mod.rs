//! HTTP: health, metrics, streams, ingest, inference, and the live page.
