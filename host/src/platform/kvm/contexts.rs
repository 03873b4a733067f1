//! What a vCPU's TLB may hold: of which space, under which tag, as of which edition of its table.
//!
//! A TLB with tags (PCIDs on x86_64, ASIDs on aarch64) keeps the translations of several spaces apart. Each vCPU gives its
//! own few tags to the spaces that it runs, in turn. A tag that names an older edition of a space, or another space, is
//! flushed when it is loaded. Nothing here is shared: what other CPUs have edited is heard of by the space's generation
//! (see the parent module).
//!
//! Two vCPUs of a VM may use one tag for different spaces although hardware could share what it holds among them: KVM drops
//! what a physical CPU holds of the VM when another of its vCPUs runs there (`last_vcpu_ran` in arm64's KVM; on x86 each
//! vCPU has a VPID or an ASID of its own).

/// How many tags a vCPU cycles through. 0 is for a TLB without tags.
const TAGS: usize = 6;

/// A space's table as it was at some generation.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
struct Edition {
    /// The space's id; 0 for none.
    space: u64,
    generation: u64,
}

/// What one vCPU's TLB may hold.
#[derive(Default)]
pub(super) struct Contexts {
    /// What the root register names.
    loaded: Edition,
    /// The same for each tag.
    tags: [Edition; TAGS],
    newest: usize,
}

/// How a root is to be loaded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Load {
    /// Under which tag; 0 for none.
    pub(super) tag: u64,
    /// What the TLB holds under it has to go.
    pub(super) flush: bool,
}

impl Contexts {
    /// Whether this edition of the space is what is loaded.
    #[inline(always)]
    pub(super) fn is_loaded(&self, space: u64, generation: u64) -> bool {
        self.loaded == Edition { space, generation }
    }

    /// Whether some edition of the space is.
    pub(super) fn has_loaded(&self, space: u64) -> bool {
        self.loaded.space == space
    }

    /// Notes that this edition is about to be loaded, and says how.
    pub(super) fn load(&mut self, space: u64, generation: u64, tagged: bool) -> Load {
        self.loaded = Edition { space, generation };
        if !tagged {
            return Load { tag: 0, flush: true };
        }
        let tag = self.tags.iter().position(|tag| tag.space == space).unwrap_or_else(|| {
            self.newest = (self.newest + 1) % TAGS;
            self.newest
        });
        let flush = self.tags[tag] != self.loaded;
        self.tags[tag] = self.loaded;
        Load { tag: tag as u64 + 1, flush }
    }

    /// Notes that all that the next edition took away was flushed here, while the space was loaded: what is held is of
    /// that one if it was of the one before.
    #[cfg(any(target_arch = "x86_64", test))]
    pub(super) fn flushed(&mut self, space: u64, before: u64) {
        let (old, new) = (Edition { space, generation: before }, Edition { space, generation: before + 1 });
        if self.loaded == old {
            self.loaded = new;
            for tag in self.tags.iter_mut().filter(|tag| **tag == old) {
                *tag = new;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    //! The flush protocol in small: two vCPUs with TLBs that keep all they can, and what runs on them, one step after the
    //! other in any order. Frames are numbered, no two alike; what the table no longer had when a
    //! [`sync`](crate::platform::AddressSpace::sync) returned is gone, and no program may reach it any more.

    use super::{Contexts, Load, TAGS};
    use proptest::collection::vec;
    use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_assert, prop_oneof};
    use std::collections::{BTreeMap, BTreeSet};

    const CPUS: usize = 2;
    const PAGES: usize = 2;
    /// More than there are tags.
    const SPACES: usize = TAGS + 2;
    /// No frame.
    const NONE: u32 = 0;

    /// How a machine's TLBs are told.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Machine {
        /// Each by itself, without tags.
        Plain,
        /// Each by itself: x86_64 with PCIDs.
        Tagged,
        /// All at once, if that is done in the guest: aarch64.
        Broadcast,
    }

    #[derive(Default)]
    struct Space {
        id: u64,
        generation: u64,
        /// The generation that no TLB is behind.
        synced: u64,
        pages: [u32; PAGES],
        /// Taken out, and not waited for yet.
        old: BTreeSet<u32>,
    }

    /// What a vCPU's thread is about.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    enum At {
        Kernel,
        /// It has announced that it is about to enter a space.
        Announced(usize),
        /// It has read the generation, and may load a root.
        Chosen(usize, Option<Load>),
        User(usize),
        /// It has edited a page of a space (in the guest or not), and not told anybody.
        Edited(usize, usize, bool),
        /// It has told, and goes on to flush its own.
        Told(usize, usize, u64),
        /// It has seen a generation, and waits until another one's count of entries changes.
        Waits {
            space: usize,
            generation: u64,
            other: usize,
            entries: u64,
        },
    }

    struct Cpu {
        contexts: Contexts,
        /// Of a tag and a page, the frame.
        tlb: BTreeMap<(u64, usize), u32>,
        /// The space and the tag that the root register names.
        root: Option<(usize, u64)>,
        entries: u64,
        loading: Option<usize>,
        at: At,
    }

    struct World {
        machine: Machine,
        cpus: Vec<Cpu>,
        spaces: Vec<Space>,
        next_frame: u32,
        next_space: u64,
        gone: BTreeSet<u32>,
    }

    /// One thing that happens on a vCPU: what it is about goes a step on, or, in the kernel, begins.
    #[derive(Clone, Copy, Debug)]
    enum Event {
        /// Its thread goes on: enters a space where it has a choice.
        Step { space: usize },
        /// In the kernel: edits a page.
        Edit { space: usize, page: usize, mapped: bool, in_guest: bool },
        /// In the kernel: waits until nobody reaches what was taken out.
        Sync { space: usize },
        /// In the kernel: a space ends, and another one begins.
        Renew { space: usize },
        /// The CPU translates: for the program in user code, ahead of it at any time.
        Translate { page: usize },
    }

    impl World {
        fn new(machine: Machine) -> World {
            let cpu = |_| Cpu {
                contexts: Contexts::default(),
                tlb: BTreeMap::new(),
                root: None,
                entries: 0,
                loading: None,
                at: At::Kernel,
            };
            let space = |at| Space { id: at as u64 + 1, generation: 1, ..Space::default() };
            World {
                machine,
                cpus: (0..CPUS).map(cpu).collect(),
                spaces: (0..SPACES).map(space).collect(),
                next_frame: 1,
                next_space: SPACES as u64 + 1,
                gone: BTreeSet::new(),
            }
        }

        fn happens(&mut self, cpu: usize, event: Event) -> Result<(), String> {
            match (event, self.cpus[cpu].at) {
                (Event::Translate { page }, at) => {
                    return self.translate(cpu, page, matches!(at, At::User(_)));
                }
                (Event::Step { space }, At::Kernel) => {
                    self.cpus[cpu].loading = Some(space);
                    self.cpus[cpu].entries += 1;
                    self.cpus[cpu].at = At::Announced(space);
                }
                (Event::Edit { space, page, mapped, in_guest }, At::Kernel) => {
                    let frame = if mapped { self.next_frame } else { NONE };
                    self.next_frame += u32::from(mapped);
                    let old = std::mem::replace(&mut self.spaces[space].pages[page], frame);
                    self.cpus[cpu].at =
                        if old == NONE { At::Kernel } else { At::Edited(space, page, in_guest) };
                    self.spaces[space].old.extend((old != NONE).then_some(old));
                }
                (Event::Sync { space }, At::Kernel) => self.sync(cpu, space),
                (Event::Renew { space }, At::Kernel) => self.renew(space),
                (_, at) => self.step(cpu, at),
            }
            Ok(())
        }

        /// The thread's next step.
        fn step(&mut self, cpu: usize, at: At) {
            match at {
                At::Kernel => {}
                At::Announced(space) => {
                    let (id, generation) = (self.spaces[space].id, self.spaces[space].generation);
                    let contexts = &mut self.cpus[cpu].contexts;
                    let load = (!contexts.is_loaded(id, generation))
                        .then(|| contexts.load(id, generation, self.machine != Machine::Plain));
                    self.cpus[cpu].at = At::Chosen(space, load);
                }
                At::Chosen(space, load) => {
                    if let Some(load) = load {
                        self.cpus[cpu].root = Some((space, load.tag));
                        self.cpus[cpu].tlb.retain(|(tag, _), _| *tag != load.tag || !load.flush);
                    }
                    self.cpus[cpu].at = At::User(space);
                }
                At::User(_) => {
                    self.cpus[cpu].entries += 1;
                    self.cpus[cpu].at = At::Kernel;
                }
                At::Edited(_, page, in_guest) if self.machine == Machine::Broadcast && in_guest => {
                    self.cpus.iter_mut().for_each(|cpu| cpu.tlb.retain(|(_, held), _| *held != page));
                    self.cpus[cpu].at = At::Kernel;
                }
                At::Edited(space, page, in_guest) => {
                    let before = self.spaces[space].generation;
                    self.spaces[space].generation += 1;
                    self.cpus[cpu].at = if in_guest { At::Told(space, page, before) } else { At::Kernel };
                }
                At::Told(space, page, before) => {
                    let here = &mut self.cpus[cpu];
                    if let Some((_, tag)) = here.root.filter(|(root, _)| *root == space)
                        && self.machine != Machine::Broadcast
                    {
                        here.tlb.remove(&(tag, page));
                        here.contexts.flushed(self.spaces[space].id, before);
                    }
                    here.at = At::Kernel;
                }
                At::Waits { space, generation, other, entries } if self.cpus[other].entries != entries => {
                    self.look(cpu, space, generation, other + 1);
                }
                At::Waits { .. } => {}
            }
        }

        fn sync(&mut self, cpu: usize, space: usize) {
            let it = &self.spaces[space];
            if it.synced < it.generation {
                self.look(cpu, space, it.generation, 0);
            } else {
                self.let_go(space);
            }
        }

        /// Waits for the first from `from` on that is in user code of the space; with none, what is old is gone.
        fn look(&mut self, cpu: usize, space: usize, generation: u64, from: usize) {
            let waits = (from..CPUS).find(|other| {
                let it = &self.cpus[*other];
                *other != cpu && it.entries % 2 == 1 && it.loading == Some(space)
            });
            self.cpus[cpu].at = match waits {
                Some(other) => At::Waits { space, generation, other, entries: self.cpus[other].entries },
                None => At::Kernel,
            };
            if waits.is_none() {
                self.spaces[space].synced = self.spaces[space].synced.max(generation);
                self.let_go(space);
            }
        }

        /// What was taken out before somebody waited is gone, unless an edit has not been told of: who edits and who waits
        /// have a lock in common.
        fn let_go(&mut self, space: usize) {
            let edits = |cpu: &Cpu| matches!(cpu.at, At::Edited(edited, ..) if edited == space);
            if !self.cpus.iter().any(edits) && self.spaces[space].synced == self.spaces[space].generation {
                self.gone.append(&mut self.spaces[space].old);
            }
        }

        /// Another space, whose pages and table may lie where those of one lie that nobody has any more.
        fn renew(&mut self, space: usize) {
            let uses = |cpu: &Cpu| {
                cpu.loading == Some(space)
                    || cpu.root.is_some_and(|(root, _)| root == space)
                    || matches!(cpu.at, At::Edited(at, ..) | At::Told(at, ..) | At::Waits { space: at, .. } if at == space)
            };
            if self.cpus.iter().any(uses) {
                return;
            }
            let old = std::mem::take(&mut self.spaces[space]);
            self.gone.extend(old.pages.into_iter().chain(old.old).filter(|frame| *frame != NONE));
            self.spaces[space] = Space { id: self.next_space, generation: 1, ..Space::default() };
            self.next_space += 1;
        }

        fn translate(&mut self, cpu: usize, page: usize, user: bool) -> Result<(), String> {
            let here = &mut self.cpus[cpu];
            let Some((space, tag)) = here.root else { return Ok(()) };
            let walked = self.spaces[space].pages[page];
            let frame = match here.tlb.get(&(tag, page)) {
                Some(held) => *held,
                None if walked == NONE => return Ok(()),
                None => *here.tlb.entry((tag, page)).or_insert(walked),
            };
            let reached = user && self.gone.contains(&frame);
            if reached { Err(format!("vCPU {cpu} reaches frame {frame} of space {space}")) } else { Ok(()) }
        }
    }

    /// What happens in so many spaces.
    fn events(spaces: usize) -> impl Strategy<Value = Vec<(usize, Event)>> {
        let (space, page) = (0..spaces, 0..PAGES);
        let edit = (space.clone(), page.clone(), any::<bool>(), any::<bool>());
        let event = prop_oneof![
            8 => space.clone().prop_map(|space| Event::Step { space }),
            4 => edit.prop_map(|(space, page, mapped, in_guest)| Event::Edit { space, page, mapped, in_guest }),
            4 => space.clone().prop_map(|space| Event::Sync { space }),
            1 => space.prop_map(|space| Event::Renew { space }),
            8 => page.prop_map(|page| Event::Translate { page }),
        ];
        vec((0..CPUS, event), 1..600)
    }

    fn machines() -> impl Strategy<Value = Machine> {
        prop_oneof![Just(Machine::Plain), Just(Machine::Tagged), Just(Machine::Broadcast)]
    }

    proptest::proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        #[test]
        fn nobody_reaches_what_is_gone(machine in machines(), events in prop_oneof![events(2), events(SPACES)]) {
            let mut world = World::new(machine);
            for (cpu, event) in events {
                let happened = world.happens(cpu, event);
                prop_assert!(happened.is_ok(), "{happened:?}");
            }
        }
    }

    #[test]
    fn tags_go_round_and_are_flushed_when_they_are_somebody_elses() {
        let mut contexts = Contexts::default();
        let first: Vec<_> = (1..=TAGS as u64).map(|space| contexts.load(space, 1, true)).collect();
        assert!(first.iter().all(|load| load.flush), "nobody had them");
        assert_eq!(contexts.load(1, 1, true), Load { flush: false, ..first[0] });
        assert_eq!(contexts.load(1, 2, true), first[0], "edited");
        assert_eq!(contexts.load(99, 1, true), first[0], "the oldest one's");
        assert!(contexts.load(1, 2, true).flush);
        assert_eq!(contexts.load(1, 2, false), Load { tag: 0, flush: true });
    }
}
