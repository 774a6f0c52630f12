//! What every plugin has to keep, ours and the examples: see `tests/`. Here is what the tests stand on.

mod material;
mod random;
mod subject;

pub use material::recorded_material;
pub use random::Random;
pub use subject::{Loaded, Subject, built_plugins};
