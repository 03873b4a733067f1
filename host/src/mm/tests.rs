//! Tests of `mm` as a whole.
