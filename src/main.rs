//! The binary: arguments in, exit code out.

use std::process::ExitCode;

/// musl's own allocator costs half as much CPU again per request.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    forebay::app::main()
}
