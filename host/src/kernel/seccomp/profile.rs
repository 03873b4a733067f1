//! A filter as a container's specification describes it: names and conditions instead of instructions.
//!
//! It is looked up, not run: one array index tells what becomes of a call that has no conditions, which are nearly all. What a
//! call gets is what libseccomp's translation of the same specification gives it, so that a profile written for other runtimes
//! means the same here: rules of one call are alternatives, a rule without conditions outweighs those with, and calls younger
//! than the youngest that the profile names fail with ENOSYS, which libraries take for an old kernel and not for a refusal.

use super::action;
use crate::abi::Errno;

/// How an argument is compared (seccomp_rule_add(3)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compare {
    /// It is another.
    NotEqual,
    /// It is less.
    Less,
    /// It is at most this.
    LessOrEqual,
    /// It is this.
    Equal,
    /// It is at least this.
    GreaterOrEqual,
    /// It is more.
    Greater,
    /// Its bits under this mask are these.
    Masked(u64),
}

/// A condition on one argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Which, from 0 to 5.
    pub index: u8,
    /// How.
    pub compare: Compare,
    /// With what.
    pub value: u64,
}

impl Condition {
    fn holds(&self, args: &[u64; 6]) -> bool {
        let arg = args[usize::from(self.index) % args.len()];
        match self.compare {
            Compare::NotEqual => arg != self.value,
            Compare::Less => arg < self.value,
            Compare::LessOrEqual => arg <= self.value,
            Compare::Equal => arg == self.value,
            Compare::GreaterOrEqual => arg >= self.value,
            Compare::Greater => arg > self.value,
            Compare::Masked(mask) => arg & mask == self.value,
        }
    }
}

/// What becomes of a call if all conditions hold.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    conditions: Box<[Condition]>,
    result: u32,
}

/// A whole filter. A result is a word as filters return it (linux/seccomp.h).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// By number: rules, those with conditions first.
    rules: Vec<Vec<Rule>>,
    otherwise: u32,
}

impl Profile {
    /// One that gives every call this result.
    #[must_use]
    pub fn new(otherwise: u32) -> Self {
        Profile { rules: Vec::new(), otherwise }
    }

    /// Adds a rule for a call: if all of `conditions` hold, this is its result.
    pub fn add(&mut self, number: u16, conditions: Box<[Condition]>, result: u32) {
        let number = usize::from(number);
        if self.rules.len() <= number {
            self.rules.resize(number + 1, Vec::new());
        }
        let rules = &mut self.rules[number];
        if conditions.is_empty() {
            rules.clear();
        } else if rules.iter().any(|rule| rule.conditions.is_empty()) {
            return;
        }
        rules.push(Rule { conditions, result });
    }

    /// What becomes of a call.
    pub(super) fn result(&self, number: u32, args: &[u64; 6]) -> u32 {
        let Some(rules) = self.rules.get(number as usize) else { return self.unknown() };
        let rule = rules.iter().find(|rule| rule.conditions.iter().all(|condition| condition.holds(args)));
        rule.map_or(self.otherwise, |rule| rule.result)
    }

    /// Of a call that was not there when the profile was written.
    fn unknown(&self) -> u32 {
        match self.otherwise & !0xffff {
            action::ERRNO if !self.rules.is_empty() => action::ERRNO | Errno::ENOSYS.0 as u32,
            _ => self.otherwise,
        }
    }

    /// How long it counts as in a chain: an instruction for each call it names and for each condition.
    pub(super) fn len(&self) -> usize {
        self.rules.iter().flatten().map(|rule| 1 + rule.conditions.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::{Compare, Condition, Profile, action};

    const DENY: u32 = action::ERRNO | 1;

    fn on(index: u8, compare: Compare, value: u64) -> Box<[Condition]> {
        Box::new([Condition { index, compare, value }])
    }

    #[test]
    fn calls_get_what_their_rules_say_and_others_the_rest() {
        let mut profile = Profile::new(DENY);
        profile.add(0, Box::new([]), action::ALLOW);
        profile.add(9, Box::new([]), action::KILL_PROCESS);
        assert_eq!(profile.result(0, &[0; 6]), action::ALLOW);
        assert_eq!(profile.result(1, &[0; 6]), DENY);
        assert_eq!(profile.result(9, &[0; 6]), action::KILL_PROCESS);
        // Not there when it was written.
        assert_eq!(profile.result(10, &[0; 6]), action::ERRNO | 38);
        assert_eq!(profile.result(u32::MAX, &[0; 6]), action::ERRNO | 38);
        // One that allows what it does not name names nothing younger, either.
        assert_eq!(Profile::new(action::ALLOW).result(u32::MAX, &[0; 6]), action::ALLOW);
        assert_eq!(Profile::new(DENY).result(5, &[0; 6]), DENY);
    }

    #[test]
    fn rules_of_a_call_are_alternatives_and_one_without_conditions_outweighs_them() {
        let mut profile = Profile::new(DENY);
        profile.add(3, on(0, Compare::Equal, 7), action::ALLOW);
        profile.add(3, on(1, Compare::Masked(0xf0), 0x20), action::LOG);
        assert_eq!(profile.result(3, &[7, 0, 0, 0, 0, 0]), action::ALLOW);
        assert_eq!(profile.result(3, &[6, 0x123, 0, 0, 0, 0]), action::LOG);
        assert_eq!(profile.result(3, &[6, 0x133, 0, 0, 0, 0]), DENY);
        profile.add(3, Box::new([]), action::TRAP);
        profile.add(3, on(0, Compare::Equal, 7), action::ALLOW);
        assert_eq!(profile.result(3, &[7, 0, 0, 0, 0, 0]), action::TRAP);
    }

    #[test]
    fn arguments_are_compared_as_64_bits() {
        let top = 1 << 63;
        for (compare, value, arg, holds) in [
            (Compare::NotEqual, 1, 1, false),
            (Compare::Less, top, top - 1, true),
            (Compare::LessOrEqual, top, top, true),
            (Compare::Greater, 5, top, true),
            (Compare::GreaterOrEqual, 5, 4, false),
            (Compare::Equal, 1, 1 << 32 | 1, false),
        ] {
            assert_eq!(on(0, compare, value)[0].holds(&[arg, 0, 0, 0, 0, 0]), holds, "{compare:?}");
        }
    }
}
