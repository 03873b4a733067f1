//! Tests of `mm` as a whole, on a platform that only keeps books.

mod basic;
mod model;
mod vmas;
