//! From a list of system calls to a seccomp program.

use std::collections::BTreeMap;

use protocol::ids::Digest;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Len, SeccompCmpOp as Op, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch,
};

use crate::profiles::{Calls, Rule, Test};

/// Compiled filters, in the order they are installed. The kernel runs all of them and takes the
/// strictest answer. A call of another architecture kills the process.
#[derive(Clone, Debug)]
pub(crate) struct Program(Vec<BpfProgram>);

impl Program {
    /// Compiles a profile's list.
    pub(crate) fn compile(calls: &Calls) -> Result<Self, String> {
        let mut filters = Vec::new();
        match calls {
            Calls::AllBut(refused) => {
                filters.push(filter(refused, SeccompAction::Allow, errno(libc::EPERM))?)
            }
            Calls::Only { allowed, absent } => {
                // The list comes last, since it does not allow to install another. Of two errors the kernel
                // returns that of the newest filter, so the list lets through what an older one answers.
                let mut passed = allowed.to_vec();
                for (rules, number) in *absent {
                    filters.push(filter(&[rules], SeccompAction::Allow, errno(*number))?);
                    passed.push(rules);
                }
                filters.push(filter(&passed, errno(libc::EPERM), SeccompAction::Allow)?);
            }
        }
        Ok(Self(filters))
    }

    /// Installs all of them on this thread, for good.
    pub(crate) fn install(&self) -> Result<(), String> {
        self.0.iter().try_for_each(|filter| seccompiler::apply_filter(filter)).map_err(|e| {
            format!("seccomp: {e}; the kernel needs CONFIG_SECCOMP_FILTER, and a container around it must allow seccomp(2)")
        })
    }

    /// SHA-256 over the instructions as the kernel gets them.
    pub(crate) fn digest(&self) -> Digest {
        let mut bytes = Vec::new();
        for step in self.0.iter().flatten() {
            bytes.extend(step.code.to_ne_bytes());
            bytes.extend([step.jt, step.jf]);
            bytes.extend(step.k.to_ne_bytes());
        }
        Digest::of(bytes)
    }
}

fn errno(number: i32) -> SeccompAction {
    SeccompAction::Errno(number.unsigned_abs())
}

fn filter(
    groups: &[&[Rule]],
    otherwise: SeccompAction,
    matched: SeccompAction,
) -> Result<BpfProgram, String> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    let mut always = Vec::new();
    for rule in groups.iter().copied().flatten() {
        let alternatives = rules.entry(rule.number).or_default();
        if rule.when.is_empty() {
            always.push(rule.number);
        }
        for tests in rule.when {
            let conditions = tests.iter().map(condition).collect::<Result<Vec<_>, _>>();
            alternatives.push(
                conditions
                    .and_then(SeccompRule::new)
                    .map_err(|e| format!("seccomp rule {}: {e}", rule.name))?,
            );
        }
    }
    // No condition means always, also where another group has conditions for the same call.
    for number in always {
        rules.insert(number, Vec::new());
    }
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(|e| format!("seccomp: {e}"))?;
    SeccompFilter::new(rules, otherwise, matched, arch)
        .and_then(BpfProgram::try_from)
        .map_err(|e| format!("seccomp: {e}"))
}

/// All arguments that are tested are `int`s in the kernel, so it looks at 32 bits only, and so does this.
fn condition(test: &Test) -> Result<SeccompCondition, seccompiler::BackendError> {
    let (argument, operation, value) = match *test {
        Test::Is(argument, value) => (argument, Op::Eq, value),
        Test::Not(argument, value) => (argument, Op::Ne, value),
        Test::Clear(argument, mask) => (argument, Op::MaskedEq(u64::from(mask)), 0),
        Test::Set(argument, mask) => (argument, Op::MaskedEq(u64::from(mask)), mask),
        Test::Bits(argument, mask, value) => (argument, Op::MaskedEq(u64::from(mask)), value),
        Test::Own(argument) => (argument, Op::Eq, std::process::id()),
    };
    SeccompCondition::new(argument, Len::Dword, operation, u64::from(value))
}
