//! What of the network `pillbox do` lets its programs reach.

use crate::sandbox::{Network, Publish};
use crate::warden::rules::{Ports, Rule, Rules};
use std::path::PathBuf;

// Those options.
#[derive(clap::Args)]
pub(super) struct NetOptions {
    /// What the program can reach: what this machine reaches (but not the machine itself), or nothing
    #[arg(long, value_enum, default_value_t, value_name = "HOW")]
    pub(super) network: Network,
    /// Have a port of this machine lead to one inside, also to one that listens on 127.0.0.1 there only
    #[arg(long, short = 'p', value_name = "[ADDR:]HOSTPORT:PORT[/udp]")]
    pub(super) publish: Vec<Publish>,
    /// Let programs reach these and nothing else: NAME, *.NAME, an address or a prefix (10.0.0.0/8), each with :PORT or
    /// :PORT-PORT where not all are meant, IPv6 in [brackets] then
    #[arg(long, value_name = "RULE", num_args = 1.., value_delimiter = ',')]
    allow_net: Vec<Rule>,
    /// Let programs not reach these, whatever --allow-net says
    #[arg(long, value_name = "RULE", num_args = 1.., value_delimiter = ',')]
    deny_net: Vec<Rule>,
    /// Append a line of JSON to FILE for each connection that is allowed, refused or closed
    #[arg(long, value_name = "FILE")]
    pub(super) net_log: Option<PathBuf>,
    /// Have ports of loopback addresses that nobody inside has lead to this machine's own (all, or 5432,8000-8999)
    #[arg(long, value_name = "PORTS", num_args = 0..=1, require_equals = true, default_missing_value = "1-65535", value_delimiter = ',')]
    host_loopback: Vec<Ports>,
}

impl NetOptions {
    /// The rules, as a sandbox is told.
    pub(super) fn rules(&self) -> Rules {
        let (allow, deny) = (self.allow_net.clone(), self.deny_net.clone());
        Rules { allow, deny, host_loopback: self.host_loopback.clone() }
    }
}
