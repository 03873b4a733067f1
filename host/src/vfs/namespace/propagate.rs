//! What a change of a shared mount is to its peers and slaves.

use super::{MAX_MOUNTS, Mount, Namespace, Path, Propagation, Sharing, lock_tree, tree_of};
use crate::abi::Result;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A mount, and whose it is.
type Hearer = (Arc<Mount>, Arc<Namespace>);

/// A mount that hears of a change, and where it is.
struct Receiver {
    mount: Arc<Mount>,
    ns: Arc<Namespace>,
    /// The group through which it hears: its own, or its master's.
    through: u64,
}

impl Namespace {
    /// Everybody who hears of a change of `mount`: masters before their slaves.
    fn receivers(&self, mount: &Arc<Mount>) -> Vec<Receiver> {
        let origin = mount.sharing().group;
        if origin == 0 {
            return Vec::new();
        }
        // Found by their groups, in one look at each: a program may have made as many groups as mounts.
        let mut tellers: BTreeMap<u64, Vec<Hearer>> = BTreeMap::new();
        for ns in self.forest.namespaces() {
            for other in ns.mounts().into_iter().filter(|other| !Arc::ptr_eq(other, mount)) {
                let Sharing { group, master, .. } = other.sharing();
                if master != 0 && master != group {
                    tellers.entry(master).or_default().push((other.clone(), ns.clone()));
                }
                if group != 0 {
                    tellers.entry(group).or_default().push((other, ns.clone()));
                }
            }
        }
        let mut found: Vec<Receiver> = Vec::new();
        let mut groups = vec![origin];
        let mut known = BTreeSet::from([origin]);
        let mut at = 0;
        while let Some(&through) = groups.get(at) {
            for (other, ns) in tellers.remove(&through).unwrap_or_default() {
                let sharing = other.sharing();
                let is_slave = sharing.master == through;
                if is_slave && sharing.group != 0 && known.insert(sharing.group) {
                    groups.push(sharing.group);
                }
                if sharing.group == through || (is_slave && sharing.group == 0) {
                    found.push(Receiver { mount: other, ns, through });
                }
            }
            at += 1;
        }
        found
    }

    /// Changes who hears of what is mounted on a mount, and on those below it, if `recursive`.
    pub fn set_propagation(&self, mount: &Arc<Mount>, kind: Propagation, recursive: bool) {
        let _edit = self.forest.edit.lock();
        self.share(&if recursive { tree_of(mount) } else { vec![mount.clone()] }, kind);
        self.changed();
    }

    /// The same for each of these. `edit` is held.
    pub(super) fn share(&self, all: &[Arc<Mount>], kind: Propagation) {
        for mount in all {
            let old = mount.sharing();
            let new = match kind {
                Propagation::Shared => {
                    let group = if old.group == 0 { self.forest.new_group() } else { old.group };
                    Sharing { group, unbindable: false, ..old }
                }
                Propagation::Slave if old.group != 0 && self.has_peers(mount) => {
                    Sharing { group: 0, master: old.group, ..old }
                }
                Propagation::Slave => Sharing { group: 0, ..old },
                Propagation::Private => Sharing::default(),
                Propagation::Unbindable => Sharing { unbindable: true, ..Sharing::default() },
            };
            mount.set_sharing(new);
            if new.group != old.group {
                self.left_group(old);
            }
        }
    }

    /// Makes copies of `tree`, which is about to be mounted at `place`, for all who hear of it.
    pub(super) fn propagate(&self, tree: &[Arc<Mount>], place: &Path) -> Result<()> {
        let origin = place.mount.sharing().group;
        let mut receivers = self.receivers(&place.mount);
        receivers.retain(|receiver| {
            Arc::ptr_eq(&receiver.mount.root.sb, &place.dentry.sb)
                && place.dentry.is_inside(&receiver.mount.root)
        });
        let own = receivers.iter().filter(|receiver| receiver.ns.payer == self.payer).count();
        let mut tally = self.forest.tally();
        tally.take(self.payer, tree.len().saturating_mul(own + 1), MAX_MOUNTS)?;
        // Whoever has used up his share in namespaces of his own hears no more; that keeps nobody else from mounting.
        receivers.retain(|Receiver { ns, .. }| {
            ns.payer == self.payer || tally.take(ns.payer, tree.len(), MAX_MOUNTS).is_ok()
        });
        if origin == 0 {
            return Ok(());
        }
        for mount in tree {
            let sharing = mount.sharing();
            if sharing.group == 0 {
                mount.set_sharing(Sharing { group: self.forest.new_group(), ..sharing });
            }
        }
        let Some(top) = tree.first() else { return Ok(()) };
        // What the copies' groups are called, for each group that hears.
        let mut named: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        named.insert(origin, tree.iter().map(|mount| mount.sharing().group).collect());
        for Receiver { mount, ns, through } in receivers {
            let at = Path { mount: mount.clone(), dentry: place.dentry.clone() }.cross();
            let (_, copies) = self.copy_tree(top, top.root.clone(), true, true);
            let own = mount.sharing();
            if own.group != origin {
                // Who hears through a master's group is its slave; who is of a group that does, with all its peers.
                let teller = if own.group == 0 { through } else { own.master };
                let masters = named.get(&teller).or_else(|| named.get(&origin)).cloned().unwrap_or_default();
                let groups = if own.group == 0 {
                    vec![0; copies.len()]
                } else {
                    let made = || copies.iter().map(|_| self.forest.new_group()).collect();
                    named.entry(own.group).or_insert_with(made).clone()
                };
                for ((copy, master), group) in copies.iter().zip(masters).zip(groups) {
                    copy.set_sharing(Sharing { group, master, unbindable: false });
                }
            }
            if ns.owner != self.owner {
                lock_tree(&copies);
            }
            if let Some(top) = copies.first() {
                top.set_locked(false);
                top.attach(at);
            }
            ns.mounts.lock().extend(copies);
            ns.changed();
        }
        Ok(())
    }

    /// Takes away what was mounted for others when `gone` was.
    pub(super) fn unmount_copies(&self, gone: &Arc<Mount>) {
        let Some(place) = gone.place() else { return };
        for Receiver { mount, ns, .. } in self.receivers(&place.mount) {
            let Some(copy) = mount.on(&place.dentry) else { continue };
            // What others have mounted there since stays, what hides something does, and what they have mounted on it
            // keeps it.
            if Arc::ptr_eq(&copy.root, &gone.root)
                && !copy.is_locked()
                && tree_of(&copy).len() == 1
                && ns.has(&copy)
            {
                ns.remove(&copy);
                ns.changed();
            }
        }
    }

    /// Whether others are of a mount's group.
    fn has_peers(&self, mount: &Arc<Mount>) -> bool {
        let group = mount.sharing().group;
        let is_peer = |other: &Arc<Mount>| other.sharing().group == group && !Arc::ptr_eq(other, mount);
        group != 0 && self.forest.namespaces().iter().any(|ns| ns.mounts().iter().any(is_peer))
    }

    /// A mount was of a group. If it was the last, that group's slaves are slaves of the group that told it.
    pub(super) fn left_group(&self, old: Sharing) {
        if old.group == 0 {
            return;
        }
        let all: Vec<Arc<Mount>> = self.forest.namespaces().iter().flat_map(|ns| ns.mounts()).collect();
        if all.iter().any(|mount| mount.sharing().group == old.group) {
            return;
        }
        for mount in all {
            let sharing = mount.sharing();
            if sharing.master == old.group {
                mount.set_sharing(Sharing { master: old.master, ..sharing });
            }
        }
    }
}
