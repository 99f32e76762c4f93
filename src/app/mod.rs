//! The roof: configuration, build, run and drain, the command line.

mod allocator;
mod answers;
mod cli;
mod commands;
pub mod config;
mod cpu;
mod demo;
mod gateway;
mod memory;
mod metered;
mod notify;
pub mod prove;
pub mod replay;
mod resources;
mod runtime;
mod scripts;
mod stop;

pub use allocator::Allocator;
pub use cli::main;
pub use memory::refuse_huge_pages;
