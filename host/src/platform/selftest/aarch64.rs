//! The test programs for aarch64.
