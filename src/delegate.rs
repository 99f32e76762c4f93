//! The second program: it loads a vendor's libraries and computes one model for the gateway that started it.

use std::process::ExitCode;

use forebay::engine::delegate::host;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    host::main(arguments.next().as_deref(), arguments.next().as_deref())
}
