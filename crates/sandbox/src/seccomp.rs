//! From a list of system calls to a seccomp program (seccomp(2), classic BPF).
//!
//! One program for each list: a binary search over ranges of numbers, then the tests of that
//! call's arguments. That is a third of the work of one comparison after the other, which
//! the kernel does for each call and several times when it takes the program. The tests
//! hold it against `seccompiler`'s programs for the same lists.

use std::collections::BTreeMap;

use protocol::ids::Digest;
use seccompiler::sock_filter as Step;

use crate::ablation::{self, Layer};
use crate::profiles::{Calls, Rule, Test};

/// A compiled program. A call of another architecture or of the x32 ABI kills the process.
#[derive(Clone, Debug)]
pub(crate) struct Program(Vec<Step>);

/// The architecture as the kernel names it, `AUDIT_ARCH_*` of linux/audit.h.
#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;

/// Numbers from here on are x32's on x86-64, and nobody's elsewhere.
const X32: u32 = 0x4000_0000;

/// Offsets in `struct seccomp_data`: number, architecture, and the lower half of the first argument.
const NUMBER_AT: u32 = 0;
const ARCHITECTURE_AT: u32 = 4;
const ARGUMENTS_AT: u32 = 16;

/// The most steps that the kernel takes.
const MAX_STEPS: usize = 4096;

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const KILL: u32 = libc::SECCOMP_RET_KILL_PROCESS;

/// What becomes of a call.
struct Entry<'a> {
    name: &'static str,
    /// If one of the alternatives holds; none at all means always.
    then: u32,
    otherwise: u32,
    alternatives: Vec<&'a [Test]>,
    always: bool,
}

impl Program {
    /// Compiles a profile's list.
    pub(crate) fn compile(calls: &Calls) -> Result<Self, String> {
        let mut entries = BTreeMap::new();
        let unlisted = match calls {
            Calls::AllBut(refused) => {
                add(&mut entries, refused, error(libc::EPERM), ALLOW)?;
                ALLOW
            }
            Calls::Only { allowed, absent } => {
                add(&mut entries, allowed, ALLOW, error(libc::EPERM))?;
                for (rules, number) in *absent {
                    add(&mut entries, &[rules], error(*number), error(*number))?;
                }
                error(libc::EPERM)
            }
        };
        let entries: Vec<_> = entries.into_iter().collect();
        let mut steps = vec![
            load(ARCHITECTURE_AT),
            jump(libc::BPF_JEQ, ARCHITECTURE, 1, 0),
            end(KILL),
            load(NUMBER_AT),
            jump(libc::BPF_JGE, X32, 0, 1),
            end(KILL),
        ];
        steps.extend(search(&ranges(&entries, unlisted)?)?);
        match steps.len() {
            0..=MAX_STEPS => Ok(Self(steps)),
            more => Err(format!(
                "seccomp: {more} steps, and {MAX_STEPS} are the most"
            )),
        }
    }

    /// Installs it on this thread, for good.
    pub(crate) fn install(&self) -> Result<(), String> {
        if !ablation::on(Layer::Seccomp) {
            return Ok(());
        }
        seccompiler::apply_filter(&self.0).map_err(|e| {
            format!("seccomp: {e}; the kernel needs CONFIG_SECCOMP_FILTER, and a container around it must allow seccomp(2)")
        })
    }

    /// SHA-256 over the steps as the kernel gets them.
    pub(crate) fn digest(&self) -> Digest {
        Digest::of(self.bytes())
    }

    /// The steps as the kernel gets them: an array of `struct sock_filter`.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.0.len() * size_of::<Step>());
        for step in &self.0 {
            bytes.extend(step.code.to_ne_bytes());
            bytes.extend([step.jt, step.jf]);
            bytes.extend(step.k.to_ne_bytes());
        }
        bytes
    }
}

fn add(
    entries: &mut BTreeMap<u32, Entry<'static>>,
    groups: &[&'static [Rule]],
    then: u32,
    otherwise: u32,
) -> Result<(), String> {
    for rule in groups.iter().copied().flatten() {
        let name = rule.name;
        let number =
            u32::try_from(rule.number).map_err(|_| format!("seccomp: {name} has no number"))?;
        let entry = entries.entry(number).or_insert(Entry {
            name,
            then,
            otherwise,
            alternatives: Vec::new(),
            always: false,
        });
        if entry.then != then {
            return Err(format!(
                "seccomp: {name} is in two lists that contradict one another"
            ));
        }
        entry.always |= rule.when.is_empty();
        entry.alternatives.extend(rule.when.iter().copied());
    }
    Ok(())
}

/// A range of numbers: its first one, and what becomes of all up to the next range.
type Range = (u32, Vec<Step>);

/// All numbers, in ranges of which no two neighbours are alike: the kernel compiles the program for each
/// box, and the time that takes is that of its length.
fn ranges(entries: &[(u32, Entry<'_>)], unlisted: u32) -> Result<Vec<Range>, String> {
    let mut all: Vec<Range> = Vec::new();
    let mut add = |first, steps| match all.last() {
        Some((_, last)) if *last == steps => {}
        Some(_) | None => all.push((first, steps)),
    };
    let mut next = 0;
    for (number, entry) in entries {
        if *number > next {
            add(next, vec![end(unlisted)]);
        }
        add(*number, decide(entry)?);
        next = number + 1;
    }
    add(next, vec![end(unlisted)]);
    Ok(all)
}

/// Finds the range of the number, which is loaded.
fn search(ranges: &[Range]) -> Result<Vec<Step>, String> {
    match ranges {
        [] => Err("seccomp: no numbers".to_owned()),
        [(_, steps)] => Ok(steps.clone()),
        _ => {
            let (lower, upper) = ranges.split_at(ranges.len() / 2);
            let (first, lower, upper) = (upper[0].0, search(lower)?, search(upper)?);
            // A conditional jump reaches 255 steps; over more goes an unconditional one.
            let mut steps = match u8::try_from(lower.len()) {
                Ok(length) => vec![jump(libc::BPF_JGE, first, length, 0)],
                Err(_) => vec![jump(libc::BPF_JGE, first, 0, 1), skip(lower.len())?],
            };
            steps.extend(lower);
            steps.extend(upper);
            Ok(steps)
        }
    }
}

/// What becomes of a call whose number has been found.
fn decide(entry: &Entry<'_>) -> Result<Vec<Step>, String> {
    if entry.always {
        return Ok(vec![end(entry.then)]);
    }
    let mut steps = Vec::new();
    for tests in &entry.alternatives {
        steps.extend(
            alternative(tests, entry.then).map_err(|e| format!("seccomp: {}: {e}", entry.name))?,
        );
    }
    steps.push(end(entry.otherwise));
    Ok(steps)
}

/// All tests, then the end; the first that fails jumps past it.
fn alternative(tests: &[Test], then: u32) -> Result<Vec<Step>, String> {
    let mut steps = vec![end(then)];
    for test in tests.iter().rev() {
        let past = u8::try_from(steps.len()).map_err(|_| "too many tests".to_owned())?;
        let (argument, check) = match *test {
            Test::Is(argument, value) => (argument, vec![jump(libc::BPF_JEQ, value, 0, past)]),
            Test::Not(argument, value) => (argument, vec![jump(libc::BPF_JEQ, value, past, 0)]),
            Test::Clear(argument, mask) => (argument, vec![jump(libc::BPF_JSET, mask, past, 0)]),
            Test::Set(argument, mask) => (
                argument,
                vec![and(mask), jump(libc::BPF_JEQ, mask, 0, past)],
            ),
            Test::Bits(argument, mask, value) => (
                argument,
                vec![and(mask), jump(libc::BPF_JEQ, value, 0, past)],
            ),
            Test::Own(argument) => (
                argument,
                vec![jump(libc::BPF_JEQ, std::process::id(), 0, past)],
            ),
        };
        // The kernel takes all tested arguments as 32-bit numbers, and so does this.
        let mut test = vec![load(ARGUMENTS_AT + 8 * u32::from(argument))];
        test.extend(check);
        test.extend(steps);
        steps = test;
    }
    Ok(steps)
}

fn error(number: i32) -> u32 {
    libc::SECCOMP_RET_ERRNO | number.unsigned_abs() & libc::SECCOMP_RET_DATA
}

fn load(offset: u32) -> Step {
    step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset, 0, 0)
}

fn and(mask: u32) -> Step {
    step(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, mask, 0, 0)
}

fn jump(test: u32, value: u32, if_true: u8, if_false: u8) -> Step {
    step(libc::BPF_JMP | test | libc::BPF_K, value, if_true, if_false)
}

fn skip(steps: usize) -> Result<Step, String> {
    let steps = u32::try_from(steps).map_err(|_| "seccomp: too long".to_owned())?;
    Ok(step(libc::BPF_JMP | libc::BPF_JA, steps, 0, 0))
}

fn end(action: u32) -> Step {
    step(libc::BPF_RET | libc::BPF_K, action, 0, 0)
}

fn step(code: u32, k: u32, jt: u8, jf: u8) -> Step {
    // All codes are below 256.
    Step {
        code: code as u16,
        jt,
        jf,
        k,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use seccompiler::{
        BpfProgram, SeccompAction, SeccompCmpArgLen as Len, SeccompCmpOp as Op, SeccompCondition,
        SeccompFilter, SeccompRule, TargetArch,
    };

    use super::*;
    use crate::confine::Program as Who;
    use crate::native::spec::Kind;
    use crate::profiles;

    /// `seccompiler`'s programs for the same list; the kernel takes the strictest answer of several.
    fn reference(calls: &Calls) -> Vec<BpfProgram> {
        let errno = |number: i32| SeccompAction::Errno(number.unsigned_abs());
        let allow = SeccompAction::Allow;
        match calls {
            Calls::AllBut(refused) => vec![filter(refused, allow, errno(libc::EPERM))],
            Calls::Only { allowed, absent } => {
                let mut all: Vec<_> = absent
                    .iter()
                    .map(|(rules, number)| filter(&[rules], allow.clone(), errno(*number)))
                    .collect();
                let passed: Vec<_> = allowed
                    .iter()
                    .copied()
                    .chain(absent.iter().map(|(rules, _)| *rules))
                    .collect();
                all.push(filter(&passed, errno(libc::EPERM), allow));
                all
            }
        }
    }

    fn filter(groups: &[&[Rule]], otherwise: SeccompAction, matched: SeccompAction) -> BpfProgram {
        let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
        for rule in groups.iter().copied().flatten() {
            let conditions =
                |tests: &&[Test]| SeccompRule::new(tests.iter().map(condition).collect()).unwrap();
            rules
                .entry(rule.number)
                .or_default()
                .extend(rule.when.iter().map(conditions));
        }
        for rule in groups
            .iter()
            .copied()
            .flatten()
            .filter(|rule| rule.when.is_empty())
        {
            rules.insert(rule.number, Vec::new());
        }
        let arch = TargetArch::try_from(std::env::consts::ARCH).unwrap();
        SeccompFilter::new(rules, otherwise, matched, arch)
            .unwrap()
            .try_into()
            .unwrap()
    }

    fn condition(test: &Test) -> SeccompCondition {
        let (argument, operation, value) = match *test {
            Test::Is(argument, value) => (argument, Op::Eq, value),
            Test::Not(argument, value) => (argument, Op::Ne, value),
            Test::Clear(argument, mask) => (argument, Op::MaskedEq(u64::from(mask)), 0),
            Test::Set(argument, mask) => (argument, Op::MaskedEq(u64::from(mask)), mask),
            Test::Bits(argument, mask, value) => (argument, Op::MaskedEq(u64::from(mask)), value),
            Test::Own(argument) => (argument, Op::Eq, std::process::id()),
        };
        SeccompCondition::new(argument, Len::Dword, operation, u64::from(value)).unwrap()
    }

    /// Runs a program as the kernel does.
    fn run(program: &[Step], arch: u32, number: u32, arguments: [u64; 6]) -> u32 {
        let word = |offset: u32| match offset {
            0 => number,
            4 => arch,
            16..64 if offset.is_multiple_of(8) => arguments[(offset as usize - 16) / 8] as u32,
            20..64 => (arguments[(offset as usize - 20) / 8] >> 32) as u32,
            other => panic!("offset {other}"),
        };
        let (mut at, mut a) = (0, 0_u32);
        loop {
            let step = &program[at];
            at += 1;
            let mut branch = |holds: bool| at += usize::from(if holds { step.jt } else { step.jf });
            match step.code {
                0x20 => a = word(step.k),
                0x54 => a &= step.k,
                0x05 => at += step.k as usize,
                0x15 => branch(a == step.k),
                0x25 => branch(a > step.k),
                0x35 => branch(a >= step.k),
                0x45 => branch(a & step.k != 0),
                0x06 => return step.k,
                other => panic!("code {other:#x}"),
            }
        }
    }

    /// The strictest; among errors that of the newest, which is the last.
    fn strictest(programs: &[BpfProgram], number: u32, arguments: [u64; 6]) -> u32 {
        let rank = |action: u32| {
            if action == KILL {
                0
            } else {
                1 + (action & 0x7fff_0000)
            }
        };
        let answers = programs
            .iter()
            .rev()
            .map(|program| run(program, ARCHITECTURE, number, arguments));
        answers.min_by_key(|action| rank(*action)).unwrap()
    }

    fn lists() -> Vec<Calls> {
        use Who::*;
        let programs = [
            Supervisor,
            Gateway,
            Agent,
            Egress,
            Vault,
            Ledger,
            Sandbox,
            Inner,
            Workspace,
            Engine,
            ChannelWeb,
            ChannelTelegram,
        ];
        let boxes = [Kind::Exec, Kind::Tool, Kind::Online].map(profiles::of_box);
        programs
            .into_iter()
            .map(|program| profiles::of(program).calls)
            .chain(boxes)
            .collect()
    }

    /// The calls of the list whose arguments are tested, and every value that any test looks for,
    /// with neighbours.
    fn tested(calls: &Calls) -> (BTreeSet<i64>, Vec<u64>) {
        let groups: Vec<&[Rule]> = match calls {
            Calls::AllBut(groups) => groups.to_vec(),
            Calls::Only { allowed, absent } => allowed
                .iter()
                .copied()
                .chain(absent.iter().map(|(rules, _)| *rules))
                .collect(),
        };
        let rules = groups
            .iter()
            .copied()
            .flatten()
            .filter(|rule| !rule.when.is_empty());
        let numbers = rules.clone().map(|rule| rule.number).collect();
        let tests = rules.flat_map(|rule| rule.when.iter().copied().flatten());
        let mut values: Vec<u64> = tests
            .flat_map(|test| match *test {
                Test::Is(_, value)
                | Test::Not(_, value)
                | Test::Clear(_, value)
                | Test::Set(_, value) => vec![value],
                Test::Bits(_, mask, value) => vec![mask, value, mask ^ value],
                Test::Own(_) => vec![std::process::id()],
            })
            .flat_map(|value| {
                [
                    value,
                    value ^ 1,
                    value & value.wrapping_sub(1),
                    value | 1 << 11,
                ]
            })
            .chain([0, 1, u32::MAX])
            .flat_map(|value| [u64::from(value), u64::from(value) | 1 << 40])
            .collect();
        values.sort_unstable();
        values.dedup();
        (numbers, values)
    }

    #[test]
    fn programs_answer_as_those_of_seccompiler() {
        let mut compared = 0_u64;
        for calls in lists() {
            let (own, other) = (Program::compile(&calls).unwrap(), reference(&calls));
            let mut compare = |number: i64, arguments: [u64; 6]| {
                let number = u32::try_from(number).unwrap();
                let expected = strictest(&other, number, arguments);
                let answer = run(&own.0, ARCHITECTURE, number, arguments);
                assert_eq!(answer, expected, "{number} {arguments:?}");
                compared += 1;
            };
            (0..600).for_each(|number| compare(number, [0; 6]));
            let (numbers, values) = tested(&calls);
            for number in numbers {
                for (argument, value, rest) in product(&values) {
                    let mut arguments = [rest; 6];
                    arguments[argument] = value;
                    compare(number, arguments);
                }
            }
        }
        assert!(compared > 100_000, "{compared}");
    }

    /// Each of the first four arguments with each value, and the others with each of a few.
    fn product(values: &[u64]) -> impl Iterator<Item = (usize, u64, u64)> {
        let arguments =
            (0..4).flat_map(|argument| values.iter().map(move |value| (argument, *value)));
        arguments.flat_map(|(argument, value)| {
            [0, 1, 0o6000, u64::from(u32::MAX)].map(|rest| (argument, value, rest))
        })
    }

    #[test]
    fn other_architectures_and_x32_are_killed_by_every_program() {
        const I386: u32 = 0x4000_0003;
        for calls in lists() {
            let program = Program::compile(&calls).unwrap();
            for number in [0, 1, 59, 400] {
                assert_eq!(run(&program.0, I386, number, [0; 6]), KILL);
                assert_eq!(run(&program.0, ARCHITECTURE, number | X32, [0; 6]), KILL);
            }
            assert_eq!(run(&program.0, ARCHITECTURE, u32::MAX, [0; 6]), KILL);
        }
    }

    #[test]
    fn a_call_in_contradicting_lists_is_an_error() {
        const GROUP: &[Rule] = profiles::calls![SYS_read];
        let calls = Calls::Only {
            allowed: &[GROUP],
            absent: &[(GROUP, libc::ENOSYS)],
        };
        assert!(Program::compile(&calls).unwrap_err().contains("SYS_read"));
    }
}
