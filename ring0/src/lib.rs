//! ring0: the contract between the kernel and the code at ring 0 / EL1.
#![no_std]

pub mod layout;
