//! Every guest's console in panes of one terminal.
//!
//! ```text
//!   holder --- link ---+                  +--- draw --- paint ---+
//!   status ------------+--- run --- app --+                      +--- terminal
//!   terminal --- keys -+             |    +--- link (what was typed)
//!                                  pane --- screen --- view
//! ```
//!
//! - [`run`] waits, and is the only part that reads or writes; [`app`] is what happens, without a terminal.
//! - A guest's bytes end in [`screen`]: what reaches the user's terminal is cells of text, placed by this program.
//! - The panes only read. A guest that is typed in is connected to once more, as its writer.

pub mod app;
pub mod draw;
#[cfg(test)]
mod fixture;
pub mod keys;
pub mod layout;
pub mod link;
pub mod paint;
pub mod pane;
pub mod run;
pub mod screen;
pub mod view;

pub use run::{Wanted, run};
