//! Interfaces that programs make (ip-link(8)): dummies, pairs of veth, the loopback interface of a new network; their addresses
//! and the ways that lead from them.
//!
//! All networks of a sandbox have one [`Book`], as Linux has one RTNL: a pair has an end in each of two networks, and what
//! becomes of one is seen at the other. Each network has a picture of what is its own, [`Shown`], made anew with every change,
//! which is what sockets look at. There are no packets: what is sent by a veth is put where it would arrive.
//!
//! | module | what |
//! |---|---|
//! | here | the book, and what sockets ask |
//! | [`change`] | what programs may do |
//! | `edit` | what becomes of the book by that |
//! | `link` | an interface, and the messages that tell of it |
//! | `ways` | what leads where |

pub mod change;
mod edit;
mod link;
mod ways;
pub(super) use ways::source;

use super::Namespace;
use super::interfaces::{Interfaces, LO, Record};
use super::outer::Outer;
use crate::abi::{Errno, Result};
use crate::sync::{Lock, Rank};
use link::{End, Kind, Link};
use netlink_packet_route::route::RouteMessage;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

/// Most interfaces, addresses and ways of a network, and of all together: each takes up to a KiB.
const MOST: usize = 1024;
const MOST_OF_ALL: usize = 16_384;
/// The ways that a loopback interface has.
const USUAL_WAYS: usize = 4;

/// What there is in all networks of a sandbox.
#[derive(Default)]
struct Nets {
    nets: BTreeMap<u64, Net>,
    last: u64,
}

/// The same, for whoever changes it.
pub struct Book(Lock<Nets>);

impl Default for Book {
    fn default() -> Self {
        Book(Lock::new(Rank::Links, Nets::default()))
    }
}

/// What is of one network.
struct Net {
    network: Weak<Namespace>,
    view: Arc<View>,
    /// What it has of the outside, which nobody changes. It is read when it is first asked for.
    outer: Option<Arc<Outer>>,
    links: BTreeMap<u32, Link>,
    ways: Vec<RouteMessage>,
    /// The number that the last interface got that had not asked for one.
    last: u32,
}

impl Net {
    fn size(&self) -> usize {
        self.links.values().map(|link| 1 + link.addresses.len()).sum::<usize>() + self.ways.len()
    }

    /// The interfaces of the outside.
    fn outer(&self) -> Option<&Interfaces> {
        self.outer.as_ref().map(|outer| outer.interfaces())
    }

    /// Whether the outside has an interface of that number, or, if it is 0, of that name.
    fn is_outer(&self, index: u32, name: Option<&str>) -> bool {
        let named = |own: &str| index == 0 && name == Some(own);
        self.outer().is_some_and(|all| all.links().any(|it| it.index == index || named(&it.name)))
    }

    /// A number for one that was given none: after the last of these, and nobody's.
    fn next(&mut self) -> u32 {
        loop {
            self.last = self.last % i32::MAX as u32 + 1;
            if !self.links.contains_key(&self.last) && !self.is_outer(self.last, None) {
                return self.last;
            }
        }
    }

    fn find(&self, index: u32, name: Option<&str>) -> Option<u32> {
        if index > 0 {
            return self.links.contains_key(&index).then_some(index);
        }
        let name = name?;
        self.links.iter().find(|(_, link)| link.name == name).map(|(&index, _)| index)
    }
}

/// The picture that sockets look at.
struct View {
    shown: Lock<Arc<Shown>>,
    /// The loopback interface is up, and has its usual addresses.
    loopback: AtomicBool,
    /// There is something that programs have made.
    more: AtomicBool,
}

/// What a network has.
pub struct Shown {
    interfaces: Interfaces,
    /// Its addresses, but for those of the outside.
    own: BTreeSet<IpAddr>,
    /// Prefixes that are local as a whole: of the loopback interface.
    loops: Vec<(IpAddr, u8)>,
    /// The interfaces that are not the outside's.
    made: BTreeSet<u32>,
    /// Who is at the other ends of veths that are up at both.
    peers: BTreeMap<u32, Weak<Namespace>>,
}

/// Where what is sent to an address arrives.
pub enum Home {
    /// Here.
    Here,
    /// In another network of the sandbox; what comes from here has that address.
    There(Arc<Namespace>, IpAddr),
    /// Nowhere: there is a way, which begins at that address, but nobody at its end.
    Lost(Option<IpAddr>),
    /// Elsewhere, if anywhere.
    Outside,
}

/// What one network has to do with the book.
pub struct Links {
    book: Arc<Book>,
    number: u64,
    view: Arc<View>,
}

impl Links {
    /// The interfaces of a new network: what is of the outside, or else a loopback interface, which is `up` or not.
    pub(super) fn new(
        book: &Arc<Book>,
        network: Weak<Namespace>,
        outer: Option<Arc<Outer>>,
        up: bool,
    ) -> Links {
        let shown = Lock::new(Rank::LinksShown, Arc::new(Shown::of(Interfaces::none())));
        let (loopback, more) = (AtomicBool::new(true), AtomicBool::new(false));
        let view = Arc::new(View { shown, loopback, more });
        let own = outer.is_none().then(|| (LO, Link::loopback()));
        let links = own.into_iter().collect::<BTreeMap<_, _>>();
        let alone = outer.is_none();
        let mut net = Net { network, view: view.clone(), outer, links, ways: Vec::new(), last: LO };
        if up {
            net.switch(LO, true);
        }
        let mut nets = book.0.lock();
        nets.last += 1;
        let number = nets.last;
        nets.nets.insert(number, net);
        if alone {
            nets.show(number);
        }
        drop(nets);
        Links { book: book.clone(), number, view }
    }

    /// Those of a network that has nothing but itself.
    pub(super) fn loopback() -> Interfaces {
        Links::new(&Arc::default(), Weak::new(), None, true).interfaces()
    }

    /// The book, for a network beside it.
    pub(super) fn book(&self) -> &Arc<Book> {
        &self.book
    }

    /// Whether there is more than what is of the outside, or the loopback interface.
    pub(super) fn has_made(&self) -> bool {
        self.view.more.load(Ordering::Relaxed)
    }

    /// What there is.
    pub(super) fn interfaces(&self) -> Interfaces {
        self.view.shown.lock().interfaces.clone()
    }

    /// Whether an address is of an interface that a program has made, or of the loopback interface.
    #[inline]
    pub(super) fn has(&self, ip: IpAddr) -> bool {
        if ip.is_loopback() && self.view.loopback.load(Ordering::Relaxed) {
            return true;
        }
        self.view.more.load(Ordering::Relaxed) && self.has_more(ip)
    }

    #[cold]
    fn has_more(&self, ip: IpAddr) -> bool {
        let shown = self.view.shown.lock().clone();
        shown.own.contains(&ip) || shown.loops.iter().any(|(net, prefix)| ways::covers((*net, *prefix), ip))
    }

    /// Where what is sent to an address arrives that is not local.
    pub(super) fn beyond(&self, ip: IpAddr) -> Home {
        if !self.view.more.load(Ordering::Relaxed) {
            return Home::Outside;
        }
        let shown = self.view.shown.lock().clone();
        let is_made = |index: Option<u32>| index.is_none_or(|index| shown.made.contains(&index));
        let way = ways::best(&shown.interfaces, ip).filter(|(index, _)| is_made(*index));
        let Some((index, way)) = way else { return Home::Outside };
        // One without an interface is there to lead nowhere.
        let Some(index) = index else { return Home::Lost(None) };
        let there = shown.peers.get(&index).and_then(Weak::upgrade);
        let from = ways::source(&shown.interfaces, way, ip);
        match (there, from) {
            // The other end does not pass on what is for others.
            (Some(there), Some(from)) if !ip.is_loopback() && there.is_local(ip) => Home::There(there, from),
            (_, from) => Home::Lost(from),
        }
    }

    /// Whether an interface is none of the outside's.
    pub(super) fn is_made(&self, index: u32) -> bool {
        self.has_made() && self.view.shown.lock().made.contains(&index)
    }

    /// Changes what there is in this network, and in others where that is to be seen.
    fn edit<R>(&self, change: impl FnOnce(&mut Nets, u64) -> Result<R>) -> Result<R> {
        let mut nets = self.book.0.lock();
        change(&mut nets, self.number)
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        let mut nets = self.book.0.lock();
        let Some(gone) = nets.nets.remove(&self.number) else { return };
        for link in gone.links.values() {
            nets.cut(link);
        }
        drop(nets);
    }
}

impl Nets {
    fn net(&mut self, number: u64) -> Result<&mut Net> {
        self.nets.get_mut(&number).ok_or(Errno::ENODEV)
    }

    /// Whether there is room for so many more things in a network.
    fn has_room(&self, number: u64, more: usize) -> Result<()> {
        let of = self.nets.get(&number).map_or(0, Net::size);
        let all: usize = self.nets.values().map(Net::size).sum();
        if of + more > MOST || all + more > MOST_OF_ALL { Err(Errno::ENOBUFS) } else { Ok(()) }
    }

    /// Takes away the other end of a veth.
    fn cut(&mut self, link: &Link) {
        if let Kind::Veth(Some(End { net, index })) = link.kind
            && let Some(other) = self.nets.get_mut(&net)
        {
            other.forget(index);
            self.show(net);
        }
    }

    /// Whether the other end of a veth is up; of others, whether there is anything to stop them.
    fn carries(&self, link: &Link) -> bool {
        match link.kind {
            Kind::Veth(Some(End { net, index })) => {
                self.nets.get(&net).and_then(|net| net.links.get(&index)).is_some_and(|end| end.up)
            }
            Kind::Veth(None) => false,
            Kind::Loopback | Kind::Dummy => true,
        }
    }

    /// Makes the picture of a network anew.
    fn show(&self, number: u64) {
        let Some(net) = self.nets.get(&number) else { return };
        let mut records: Vec<Record> =
            net.outer().into_iter().flat_map(|all| all.records().to_vec()).collect();
        let mut shown = Shown::of(Interfaces::none());
        for (&index, link) in &net.links {
            let carrier = self.carries(link);
            let elsewhere = matches!(link.kind, Kind::Veth(Some(end)) if end.net != number);
            records.push(link.record(index, carrier, elsewhere));
            shown.made.insert(index);
            for own in &link.addresses {
                shown.own.insert(own.ip);
                if link.kind == Kind::Loopback && link.up {
                    shown.loops.push((own.ip, own.prefix));
                }
            }
            if let (Kind::Veth(Some(end)), true, true) = (&link.kind, link.up, carrier)
                && let Some(other) = self.nets.get(&end.net)
            {
                shown.peers.insert(index, other.network.clone());
            }
        }
        for v4 in [true, false] {
            let all = net
                .links
                .iter()
                .flat_map(|(index, link)| link.addresses.iter().map(move |own| (*index, own)));
            let of_family = all.filter(|(_, own)| own.ip.is_ipv4() == v4);
            records.extend(of_family.map(|(index, own)| own.record(index)));
        }
        records.extend(net.ways.iter().map(ways::record));
        if net.outer.is_none() {
            records.extend(Interfaces::rules());
        }
        let usual = |ip: &str| ip.parse().is_ok_and(|ip| shown.own.contains(&ip));
        let lo_up = net.links.get(&LO).is_none_or(|lo| lo.up);
        let loopback = net.outer.is_some() || (lo_up && usual("127.0.0.1") && usual("::1"));
        let usually = if net.outer.is_none() { (1, 2) } else { (0, 0) };
        let more = (net.links.len(), shown.own.len()) != usually || !loopback || net.ways.len() > USUAL_WAYS;
        shown.interfaces = Interfaces::of(records);
        net.view.loopback.store(loopback, Ordering::Relaxed);
        net.view.more.store(more, Ordering::Relaxed);
        let old = std::mem::replace(&mut *net.view.shown.lock(), Arc::new(shown));
        drop(old);
    }

    /// The same, of the networks that the ends of a network's veths are in, too.
    fn show_all(&self, number: u64) {
        self.show(number);
        let ends = self.nets.get(&number).into_iter().flat_map(|net| net.links.values());
        let others: BTreeSet<u64> = ends.filter_map(|link| link.kind.other()).map(|end| end.net).collect();
        others.into_iter().filter(|&other| other != number).for_each(|other| self.show(other));
    }
}

impl Shown {
    fn of(interfaces: Interfaces) -> Shown {
        let (own, made) = (BTreeSet::new(), BTreeSet::new());
        Shown { interfaces, own, loops: Vec::new(), made, peers: BTreeMap::new() }
    }
}
