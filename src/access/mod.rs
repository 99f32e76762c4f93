//! Who is calling: keys, passwords and client certificates become a `Principal` with topic rules.
