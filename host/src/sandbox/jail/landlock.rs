//! Landlock, where the host has it: the thread, and those that it makes, can read below the given directories, write to some of them, and reach no other
//! file, no port and no other process's memory, whatever calls a hole in the filter may leave.
//!
//! What is open already is not asked for again: standard streams, stubs' memory, KVM.

use super::Opened;
use crate::sandbox::Network;
use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, PathBeneath, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetError, RulesetStatus, Scope,
};

/// The newest version whose rights are given up; hosts that know less give up what they know.
const KNOWN: ABI = ABI::V6;

/// What is done in a directory that programs write through. No device is made or used there, and nothing executed.
fn written() -> BitFlags<AccessFs> {
    AccessFs::ReadFile
        | AccessFs::ReadDir
        | AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::MakeReg
        | AccessFs::MakeDir
        | AccessFs::MakeSym
        | AccessFs::MakeFifo
        | AccessFs::MakeSock
        | AccessFs::RemoveFile
        | AccessFs::RemoveDir
        | AccessFs::Refer
}

/// Restricts the calling thread. Where `more` directories will come, no file is out of its reach for that: what is handled at all
/// would forbid renames between directories that there are no rules for. False where the host has no Landlock.
///
/// # Errors
/// The host's, for making or entering the ruleset.
pub(super) fn restrict(roots: &[Opened], more: bool, network: Network) -> Result<bool, RulesetError> {
    let rules = match more {
        true => Ruleset::default(),
        false => Ruleset::default().handle_access(AccessFs::from_all(KNOWN))?,
    };
    let rules = match network {
        Network::None => rules.handle_access(AccessNet::from_all(KNOWN))?,
        Network::Host => rules,
    };
    let mut rules = rules.scope(Scope::AbstractUnixSocket)?.create()?;
    for root in roots.iter().filter(|_| !more) {
        let access = if root.written { written() } else { AccessFs::ReadFile | AccessFs::ReadDir };
        rules = rules.add_rule(PathBeneath::new(root.dir.borrow(), access))?;
    }
    Ok(rules.restrict_self()?.ruleset != RulesetStatus::NotEnforced)
}
