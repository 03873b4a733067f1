//! Open files on their way from one program to another (SCM_RIGHTS).
//!
//! Who sends files may close them: until they are received the message alone keeps them. So a socket can be on its way to
//! itself, or two to each other, where nobody will ever receive them; and sockets can lie in each other's queues a
//! million deep. [`Flight`] counts what is on its way, finds what nobody can reach any more, and lets go of what was never
//! received one file after the other instead of one inside the other.
//!
//! As on Linux (net/unix/garbage.c) a file whose every reference is on its way is a candidate; candidates that are on
//! their way to candidates only, and to no other, are garbage. A reference that a call in progress holds keeps it, which
//! is why counting references is right here: one too many makes it garbage later.
//!
//! Lock order: `state` → sockets. Files are dropped without either.

use super::File;
use crate::abi::{Errno, Result};
use crate::sync::{Lock, Rank};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

/// An open file that files can be on their way to.
pub trait Carrier {
    /// Shows every file that is.
    fn show(&self, see: &mut dyn FnMut(&Arc<File>));

    /// Takes out all of them: nobody will receive them.
    fn unload(&self) -> Vec<Parcel>;
}

/// A carrier that is on its way itself.
struct Sent {
    file: Weak<File>,
    /// How many times.
    times: usize,
}

#[derive(Default)]
struct State {
    /// Carriers, by the address of the file.
    carriers: BTreeMap<usize, Sent>,
    /// Files of each user.
    users: BTreeMap<u32, usize>,
}

#[derive(Default)]
struct Grave {
    files: Vec<Arc<File>>,
    /// Somebody is at it.
    busy: bool,
}

/// All files on their way.
pub struct Flight {
    state: Lock<State>,
    /// Carriers on their way, readable without the lock.
    count: AtomicUsize,
    /// What has happened since the last search, to weigh against its cost.
    changes: AtomicUsize,
    grave: Lock<Grave>,
}

impl Default for Flight {
    fn default() -> Self {
        Flight {
            state: Lock::new(Rank::Flight, State::default()),
            count: AtomicUsize::new(0),
            changes: AtomicUsize::new(0),
            grave: Lock::new(Rank::FlightGrave, Grave::default()),
        }
    }
}

/// Files on their way together.
pub struct Parcel {
    files: Vec<Arc<File>>,
    flight: Arc<Flight>,
    user: u32,
}

impl Parcel {
    /// Sends `files` off for `user`, who may have `limit` on the way.
    ///
    /// # Errors
    /// ETOOMANYREFS above it.
    pub fn new(flight: &Arc<Flight>, files: Vec<Arc<File>>, user: u32, limit: u64) -> Result<Parcel> {
        let mut carriers = 0;
        let mut state = flight.state.lock();
        let used = state.users.get(&user).copied().unwrap_or(0);
        if used as u64 > limit {
            return Err(Errno::ETOOMANYREFS);
        }
        state.users.insert(user, used + files.len());
        for file in files.iter().filter(|file| file.ops().carrier().is_some()) {
            let key = Arc::as_ptr(file) as usize;
            state.carriers.entry(key).or_insert(Sent { file: Arc::downgrade(file), times: 0 }).times += 1;
            carriers += 1;
        }
        flight.changes.fetch_add(carriers, Ordering::Relaxed);
        flight.count.store(state.carriers.len(), Ordering::Relaxed);
        drop(state);
        let parcel = Parcel { files, flight: flight.clone(), user };
        if carriers > 0 {
            flight.collect_if_due();
        }
        Ok(parcel)
    }

    /// The files, which stay on their way (MSG_PEEK).
    pub fn files(&self) -> &[Arc<File>] {
        &self.files
    }

    /// The files, received.
    pub fn open(mut self) -> Vec<Arc<File>> {
        self.land();
        std::mem::take(&mut self.files)
    }

    fn land(&self) {
        let mut state = self.flight.state.lock();
        if let Some(used) = state.users.get_mut(&self.user) {
            *used -= self.files.len();
            if *used == 0 {
                state.users.remove(&self.user);
            }
        }
        for key in self.files.iter().map(|file| Arc::as_ptr(file) as usize) {
            if let Some(sent) = state.carriers.get_mut(&key) {
                sent.times -= 1;
                if sent.times == 0 {
                    state.carriers.remove(&key);
                }
            }
        }
        self.flight.count.store(state.carriers.len(), Ordering::Relaxed);
    }
}

impl Drop for Parcel {
    fn drop(&mut self) {
        if !self.files.is_empty() {
            self.land();
            self.flight.bury(std::mem::take(&mut self.files));
        }
    }
}

/// Lets others bury should a burial panic.
struct Burial<'a>(&'a Lock<Grave>);

impl Drop for Burial<'_> {
    fn drop(&mut self) {
        self.0.lock().busy = false;
    }
}

impl Flight {
    /// Drops files. Those that come up while one is dropped, because they were on their way to it, follow.
    fn bury(&self, files: Vec<Arc<File>>) {
        let mut grave = self.grave.lock();
        grave.files.extend(files);
        if std::mem::replace(&mut grave.busy, true) {
            return;
        }
        drop(grave);
        let burial = Burial(&self.grave);
        loop {
            let mut grave = self.grave.lock();
            let Some(file) = grave.files.pop() else {
                // At the same moment: what comes later finds nobody at it.
                grave.busy = false;
                std::mem::forget(burial);
                return;
            };
            drop(grave);
            drop(file);
        }
    }

    /// A carrier was closed, or a program with all that it had open: garbage may have come of it.
    pub fn closed(&self) {
        if self.count.load(Ordering::Relaxed) > 0 {
            self.changes.fetch_add(1, Ordering::Relaxed);
            self.collect_if_due();
        }
    }

    /// Looks for garbage, as often as keeps the cost in proportion to what happens. Who is at it may get here again, by
    /// what it drops: then, and where others have the lock, the next change does.
    fn collect_if_due(&self) {
        let Some(state) = self.state.try_lock() else { return };
        if self.changes.load(Ordering::Relaxed).saturating_mul(4) < state.carriers.len() {
            return;
        }
        self.changes.store(0, Ordering::Relaxed);
        let mut kept = Vec::new();
        let garbage = state.garbage(&mut kept);
        let parcels: Vec<Parcel> = garbage
            .into_iter()
            .filter_map(|index: usize| kept[index].ops().carrier())
            .flat_map(Carrier::unload)
            .collect();
        drop(state);
        // These may be the last references: not before the lock is free.
        drop(parcels);
        drop(kept);
    }
}

/// A carrier of which all references are on their way.
struct Candidate {
    /// Where it is in the list of those looked at.
    index: usize,
    /// References on their way to others than candidates.
    outside: usize,
    /// Candidates on their way to it.
    cargo: Vec<usize>,
}

impl State {
    /// The garbage, as places in `kept`, which is filled with what was looked at. What is on its way to whom is looked at
    /// once and then believed: it only gets less meanwhile, since nothing is sent off without the lock.
    fn garbage(&self, kept: &mut Vec<Arc<File>>) -> Vec<usize> {
        let mut candidates = BTreeMap::new();
        for (&key, sent) in &self.carriers {
            let Some(file) = sent.file.upgrade() else { continue };
            // The one more is ours.
            if Arc::strong_count(&file) == sent.times + 1 {
                let index = kept.len();
                candidates.insert(key, Candidate { index, outside: sent.times, cargo: Vec::new() });
            }
            kept.push(file);
        }
        let keys: Vec<(usize, usize)> = candidates.iter().map(|(key, known)| (*key, known.index)).collect();
        for (key, index) in keys {
            let mut cargo = Vec::new();
            if let Some(carrier) = kept[index].ops().carrier() {
                carrier.show(&mut |file| cargo.push(Arc::as_ptr(file) as usize));
            }
            cargo.retain(|key| candidates.contains_key(key));
            for key in &cargo {
                if let Some(known) = candidates.get_mut(key) {
                    known.outside = known.outside.saturating_sub(1);
                }
            }
            if let Some(known) = candidates.get_mut(&key) {
                known.cargo = cargo;
            }
        }
        let mut reached: Vec<usize> =
            candidates.iter().filter(|(_, known)| known.outside > 0).map(|(key, _)| *key).collect();
        while let Some(key) = reached.pop() {
            // Taken out once, so that a circle ends.
            if let Some(known) = candidates.remove(&key) {
                reached.extend(known.cargo);
            }
        }
        candidates.into_values().map(|known| known.index).collect()
    }
}
