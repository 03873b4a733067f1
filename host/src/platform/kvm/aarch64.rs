//! aarch64: vCPU set-up, exits, and exceptions in Linux terms.
