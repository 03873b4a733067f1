//! The harnesses.
