//! Samples become windows, windows become features, features become tensors. Pure.
