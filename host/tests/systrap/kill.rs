//! Ends of processes.
