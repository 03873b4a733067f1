//! `linux.seccomp` of config.json: a filter over the container's programs, which our kernel applies.

use super::error::{Error, Result};
use crate::kernel::seccomp::Filter;
use crate::kernel::seccomp::profile::{Compare, Condition, Profile};
use crate::syscalls::ROWS;
use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompArg, LinuxSeccompOperator as Operator,
    LinuxSyscall,
};
use std::sync::Arc;

/// Translates it. Names of calls that this architecture does not have mean nothing here, as for other runtimes.
///
/// # Errors
/// What cannot be done, which would leave the container with less protection than it asks for.
pub(super) fn translate(asked: &LinuxSeccomp) -> Result<Arc<Filter>> {
    let mut profile = Profile::new(result(asked.default_action(), asked.default_errno_ret())?);
    for rule in asked.syscalls().iter().flatten() {
        // Saying the rest again is no rule: it would outweigh others of the same call.
        if rule.action() != asked.default_action() || rule.errno_ret() != asked.default_errno_ret() {
            add(&mut profile, rule)?;
        }
    }
    Ok(Arc::new(Filter::Profile(profile)))
}

fn result(action: Action, errno: Option<u32>) -> Result<u32> {
    match action {
        Action::ScmpActNotify => Err(Error::new("linux.seccomp: SCMP_ACT_NOTIFY: not supported")),
        // 12 bits of errno, 16 bits for a tracer.
        action if errno.is_some_and(|errno| errno > 0xffff) => Err(Error::new(format!(
            "linux.seccomp: {action:?}: no such errno: {}",
            errno.unwrap_or_default()
        ))),
        action => Ok(action.as_u32(errno)),
    }
}

fn add(profile: &mut Profile, rule: &LinuxSyscall) -> Result<()> {
    let result = result(rule.action(), rule.errno_ret())?;
    let mut conditions = Vec::new();
    for arg in rule.args().iter().flatten() {
        conditions.push(condition(arg)?);
    }
    let numbers = rule.names().iter().filter_map(|name| number(name));
    for number in numbers {
        if repeats_an_index(&conditions) {
            // What is said twice of an argument are alternatives.
            for condition in &conditions {
                profile.add(number, Box::new([*condition]), result);
            }
        } else {
            profile.add(number, conditions.clone().into(), result);
        }
    }
    Ok(())
}

fn repeats_an_index(conditions: &[Condition]) -> bool {
    let rest = |at: usize| &conditions[at + 1..];
    (conditions.iter().enumerate()).any(|(at, one)| rest(at).iter().any(|other| other.index == one.index))
}

fn condition(asked: &LinuxSeccompArg) -> Result<Condition> {
    let index = u8::try_from(asked.index()).ok().filter(|index| *index < 6);
    let index = index.ok_or_else(|| Error::new(format!("linux.seccomp: no argument {}", asked.index())))?;
    let value = asked.value();
    let (compare, value) = match asked.op() {
        Operator::ScmpCmpNe => (Compare::NotEqual, value),
        Operator::ScmpCmpLt => (Compare::Less, value),
        Operator::ScmpCmpLe => (Compare::LessOrEqual, value),
        Operator::ScmpCmpEq => (Compare::Equal, value),
        Operator::ScmpCmpGe => (Compare::GreaterOrEqual, value),
        Operator::ScmpCmpGt => (Compare::Greater, value),
        Operator::ScmpCmpMaskedEq => (Compare::Masked(value), asked.value_two().unwrap_or(0)),
    };
    Ok(Condition { index, compare, value })
}

/// The number of a call on this architecture.
fn number(name: &str) -> Option<u16> {
    ROWS.iter().find(|row| row.name == name)?.number()
}

#[cfg(test)]
mod tests {
    use super::translate;
    use crate::kernel::seccomp::Filter;

    fn of(json: &str) -> Result<String, String> {
        let asked = serde_json::from_str(json).expect("a filter");
        match &*translate(&asked).map_err(|error| error.message)? {
            Filter::Profile(profile) => Ok(format!("{profile:?}")),
            Filter::Program(_) => unreachable!("no program is made here"),
        }
    }

    #[test]
    fn what_is_said_twice_of_an_argument_are_alternatives() {
        let of = |args: &str| {
            of(&format!(
                r#"{{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{{"names":["read","no_such_call"],
                    "action":"SCMP_ACT_ALLOW","args":[{args}]}}]}}"#
            ))
            .expect("a profile")
        };
        let arg = |index, value| format!(r#"{{"index":{index},"value":{value},"op":"SCMP_CMP_EQ"}}"#);
        let alternatives = of(&format!("{},{}", arg(0, 1), arg(0, 2)));
        assert_eq!(alternatives.matches("Rule {").count(), 2, "{alternatives}");
        let both = of(&format!("{},{}", arg(0, 1), arg(1, 2)));
        assert_eq!(both.matches("Rule {").count(), 1, "{both}");
    }

    #[test]
    fn what_cannot_be_done_is_refused_by_name() {
        assert!(of(r#"{"defaultAction":"SCMP_ACT_NOTIFY"}"#).unwrap_err().contains("NOTIFY"));
        let index = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_ERRNO",
            "args":[{"index":6,"value":0,"op":"SCMP_CMP_EQ"}]}]}"#;
        assert!(of(index).unwrap_err().contains("argument 6"));
    }
}
