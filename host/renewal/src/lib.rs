//! The loops: the bot's own identity, one task for each output, and the watch for rotations of authorities.
//!
//! Everything they drive is a trait of `identity`; the wall clock is injected and sleeping is tokio's, so a test turns time by hand.
//! What a failure does to whom is the table of architecture §8: its kind decides, in [`retry_after`](schedule).

mod bot;
mod bot_identity;
mod heartbeat;
mod hook;
mod keys;
mod output;
mod schedule;

pub use bot::{Bot, Reload};
pub use bot_identity::{BotSettings, TokenSource};
pub use hook::Hook;
pub use output::{OutputJob, OutputSettings, planned_files};
