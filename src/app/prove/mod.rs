//! `forebay prove`: that what was acknowledged is on the disk, shown on the disk that the box will use.
//!
//! - `explore`: a recorded run of the real writer, cut after every call in every way a power cut could.
//! - `kill`: the real writer as a process of its own, killed under load.
//! - `account`: both add up over runs, so that a long proof can be stopped and go on.
//! - `measure`: how long this disk takes, what it is, and how fast rows become durable.
//!
//! It writes only into folders that it makes, and removes them.

mod account;
mod explore;
mod image;
mod kill;
mod load;
mod measure;
mod oracle;
mod place;
mod report;
mod scratch;
mod words;

pub use account::{Account, Totals};
pub use explore::{Exploration, Explored, explore, explore_recording, put};
pub use image::{AfterFailedSync, Cut, Image, Player};
pub use kill::{Killed, Killing, child, kill, kill_several};
pub use load::{Life, Plan, Say, run, small};
pub use measure::{Rate, Times, rate, syncs};
pub use oracle::{Breach, Finding, Inspection, inspect};
pub use place::Place;
pub use report::{Report, Wear};
pub use words::{Debt, Word};
