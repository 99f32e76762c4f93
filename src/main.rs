//! The binary: arguments in, exit code out.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: forebay::app::Allocator = forebay::app::Allocator;

/// Runs before the first allocation, whose arena would otherwise sit on huge pages already.
#[used]
#[allow(unsafe_code, reason = "the only place that runs before the allocator")]
#[unsafe(link_section = ".init_array")]
static BEFORE_ANYTHING: extern "C" fn() = {
    extern "C" fn refuse_huge_pages() {
        forebay::app::refuse_huge_pages();
    }
    refuse_huge_pages
};

fn main() -> ExitCode {
    forebay::app::main()
}
