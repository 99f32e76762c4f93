//! Rows that wait long, packed: bytes on the disk and bytes written.

pub(crate) fn run() {}
