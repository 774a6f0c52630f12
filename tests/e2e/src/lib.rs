//! Nothing runs here: the tests are in `tests/`.
