//! Models on this box: manifests, versions, digests.
