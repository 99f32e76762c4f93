//! Run a model here, on threads of its own, behind one trait.
