//! Which addresses were handed out for which names, and until when.

use super::rules::HostName;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// How long a grant lasts at least: an address must be reachable for a while, however short its name's time to live is.
const LEAST: Duration = Duration::from_secs(60);
/// And at most, whatever a resolver says.
const MOST: Duration = Duration::from_secs(24 * 3600);
/// How many there are at most: the oldest goes.
const COUNT: usize = 4096;

struct Grant {
    ip: IpAddr,
    name: HostName,
    until: Instant,
}

/// All grants of a sandbox.
#[derive(Default)]
pub struct Grants(VecDeque<Grant>);

impl Grants {
    /// Notes that a name has an address for `ttl` seconds.
    pub fn add(&mut self, ip: IpAddr, name: &HostName, ttl: u32, now: Instant) {
        let mut until = now + Duration::from_secs(ttl.into()).clamp(LEAST, MOST);
        if let Some(at) = self.0.iter().position(|grant| grant.ip == ip && grant.name == *name) {
            until = self.0.remove(at).map_or(until, |old| old.until.max(until));
        }
        if self.0.len() >= COUNT {
            self.0.retain(|grant| grant.until > now);
        }
        if self.0.len() >= COUNT {
            self.0.pop_front();
        }
        self.0.push_back(Grant { ip, name: name.clone(), until });
    }

    /// The names that an address has, latest first.
    pub fn names(&self, ip: IpAddr, now: Instant) -> impl Iterator<Item = &HostName> {
        self.0.iter().rev().filter(move |grant| grant.ip == ip && grant.until > now).map(|grant| &grant.name)
    }
}

#[cfg(test)]
mod tests {
    use super::{COUNT, Grants};
    use std::net::IpAddr;
    use std::time::{Duration, Instant};

    #[test]
    fn grants_last_a_minute_at_least_and_end() {
        let (mut grants, now) = (Grants::default(), Instant::now());
        let (ip, name) = (IpAddr::from([1, 1, 1, 1]), "a.b".parse().expect("a name"));
        grants.add(ip, &name, 0, now);
        assert_eq!(grants.names(ip, now + Duration::from_secs(59)).count(), 1);
        assert_eq!(grants.names(ip, now + Duration::from_secs(61)).count(), 0);
        grants.add(ip, &name, u32::MAX, now);
        grants.add(ip, &name, 0, now);
        assert_eq!(
            grants.names(ip, now + Duration::from_secs(3600)).count(),
            1,
            "one that lasts is not cut short"
        );
        assert_eq!(grants.names(ip, now + Duration::from_secs(86_401)).count(), 0);
    }

    #[test]
    fn a_flood_of_names_keeps_to_its_room() {
        let (mut grants, now) = (Grants::default(), Instant::now());
        for number in 0..3 * COUNT as u32 {
            grants.add(IpAddr::from(number.to_be_bytes()), &"a.b".parse().expect("a name"), 1, now);
        }
        assert_eq!(grants.0.len(), COUNT);
        let latest = IpAddr::from((3 * COUNT as u32 - 1).to_be_bytes());
        assert_eq!(grants.names(latest, now).count(), 1);
    }
}
