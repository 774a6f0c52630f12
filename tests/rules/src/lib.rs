//! What the house keeps to, each rule a function from the repository to its findings. `tests/repository.rs` wants none of any rule;
//! beside each rule stands a sample that it refuses.

pub mod arrows;
pub mod docs;
pub mod length;
pub mod links;
mod markdown;
pub mod places;
mod repository;
pub mod top_level;
pub mod unsafety;

pub use repository::Repository;

/// One line each: `<path>[:<line>]: <what is wrong, and how to mend it>`.
pub type Findings = Vec<String>;
