//! Tests of `mm` as a whole, on a platform that only keeps books.

mod basic;
mod files;
mod model;
mod quick;
mod steps;
mod usage;
mod vmas;
