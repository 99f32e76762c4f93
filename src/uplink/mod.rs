//! The link to the cloud.
