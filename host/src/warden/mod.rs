//! The warden: a small process beside a sandbox that holds the rules about the network ([`rules`]).
//!
//! Where there are rules, the sandbox's own process cannot make a socket, nor connect one: its jail has neither call. It asks
//! the warden, which looks at its rules, connects, and hands the descriptor over. So even who has taken the sandbox's kernel
//! over talks to nobody else. The warden resolves names, too, since it has to know what addresses are whose. It has no
//! rights but sockets, and nothing that a program says makes it wait, or grow beyond bounds.
//!
//! | module | what |
//! |---|---|
//! | [`rules`] | what may be reached |
//! | [`reach`] | what kind of address an address is |
//! | [`grants`] | which addresses were handed out for which names |
//! | [`messages`] | DNS messages |
//! | `forwarder` | whom names are asked of, and for whom |
//! | `log` | what became of connections |
//! | [`wire`] | what the two processes say to each other |
//! | `serve` | the warden's loop |
//! | `start` | its beginning |

mod forwarder;
pub mod grants;
mod log;
pub mod messages;
pub mod reach;
pub mod rules;
mod serve;
mod start;
pub mod wire;

pub use serve::serve;
pub use start::{VERB, start};
