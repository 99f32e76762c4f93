//! Stamps the binary with a build time: the floor under a clock that wakes up in 1970. Warns of a SQLite that syncs slowly.
//! `SOURCE_DATE_EPOCH` keeps builds reproducible; without it the age of Cargo.lock stands in.
//! Lays the static file out in the order in which its code is needed.
//! And writes the messages of the gRPC door from its `.proto` file, with a compiler in Rust: nobody needs `protoc`.

#![allow(clippy::disallowed_methods, reason = "a build script has no app to read the environment for it")]

use std::time::UNIX_EPOCH;

fn main() {
    #[cfg(feature = "grpc")]
    open_inference();
    println!("cargo:rerun-if-changed=Cargo.lock");
    println!("cargo:rerun-if-env-changed=SOURCE_DATE_EPOCH");
    let seconds = std::env::var("SOURCE_DATE_EPOCH")
        .ok()
        .and_then(|value| value.parse::<u64>().ok())
        .or_else(|| {
            let modified = std::fs::metadata("Cargo.lock").ok()?.modified().ok()?;
            Some(modified.duration_since(UNIX_EPOCH).ok()?.as_secs())
        })
        .unwrap_or(0);
    println!("cargo:rustc-env=FOREBAY_BUILD_UNIX={seconds}");

    lay_out();

    // `.cargo/config.toml` sets it; a build that starts elsewhere would not see that it is slower.
    println!("cargo:rerun-if-env-changed=LIBSQLITE3_FLAGS");
    if !std::env::var("LIBSQLITE3_FLAGS").is_ok_and(|flags| flags.contains("HAVE_FDATASYNC")) {
        println!("cargo:warning=SQLite is built without -DHAVE_FDATASYNC: each commit costs two flushes of the disk");
    }
}

/// What runs first and often comes before the other nine tenths of the code (docs/decisions/0045). The linker reads a copy in
/// the target folder: several checkouts may share that, and the one that this ran for may be gone.
fn lay_out() {
    const ORDER: &str = "cross/order.ld";
    println!("cargo:rerun-if-changed={ORDER}");
    let is = |name, value| std::env::var(name).is_ok_and(|set| set == value);
    if is("CARGO_CFG_TARGET_ENV", "musl") && is("PROFILE", "release") {
        let copy = std::path::Path::new(&std::env::var("OUT_DIR").expect("cargo sets it")).join("order.ld");
        std::fs::copy(ORDER, &copy).expect("the file is part of this package, and OUT_DIR can be written");
        println!("cargo:rustc-link-arg-bins=-Wl,-T,{}", copy.display());
    }
}

#[cfg(feature = "grpc")]
fn open_inference() {
    const FILE: &str = "src/doors/grpc/open_inference.proto";
    println!("cargo:rerun-if-changed={FILE}");
    let parsed =
        protox::compile([FILE], ["src/doors/grpc"]).expect("the file is part of this package and tested with it");
    tonic_prost_build::configure()
        .build_client(false)
        // Tensors stay slices of the message that they came in.
        .bytes(".inference")
        .compile_fds(parsed)
        .expect("OUT_DIR can be written");
}
