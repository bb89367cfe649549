//! Attacks on the box, as a hijacked tool would make them, and what holds against each.
//!
//! A [`Probe`] is an attack, what stops it in words, and a harmless pair that has to work in the box, so that
//! "stopped" is not "everything is broken". Each runs twice: in a box, where it must be stopped, and outside,
//! where it must get through, or the test is blind. What gets through only opens, touches or connects; bombs
//! are counted out. [`stage`] is the side outside of the box.

mod attempt;
mod boxes;
mod calls;
mod files;
mod kernel;
mod lasting;
mod limits;
mod namespaces;
mod network;
mod outside;
mod privileges;
mod processes;
mod program;
mod scene;
pub mod stage;

use protocol::runner::{Limits, RunOutcome};

pub use program::main;

use attempt::Attempt;
use scene::Scene;

/// One attack.
pub(crate) struct Probe {
    /// Its name, stable.
    pub(crate) name: &'static str,
    /// What stops it, the first line first.
    pub(crate) stopped_by: &'static str,
    attack: fn(&Scene) -> Attempt,
    /// An honest program's nearest neighbour of the attack.
    harmless: fn(&Scene) -> Attempt,
    place: Place,
    control: Control,
    judge: Judge,
}

/// Which box it runs in.
#[derive(Clone, Copy)]
enum Place {
    /// One with others.
    Shared,
    /// One of its own, with these limits, since it would disturb others.
    Alone(fn(&mut Limits)),
}

/// How it gets through outside of a box.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Control {
    /// As it is.
    Plain,
    /// As root of namespaces that are made for it and thrown away: what a box takes away there has nothing
    /// to do with being root of the machine.
    Throwaway,
    /// As it is, where whoever runs it has the right. Where not, the kernel's refusal must be another than
    /// the box': one that tells that the thing is there, or that the call was looked at.
    Apart,
    /// The same, for calls that the kernel refuses to ordinary users in the same words as a filter does. The
    /// twin makes the call where a filter of ours answers in the kernel's place: `ENOSYS`, if no other filter refused it before.
    Traced(i64),
}

/// Who tells what came of it.
#[derive(Clone, Copy)]
enum Judge {
    /// The attack itself.
    Inside,
    /// The side outside of the box, after its end.
    Outside(fn(&Scene, &RunOutcome) -> Attempt),
}

impl Probe {
    const fn new(
        name: &'static str,
        stopped_by: &'static str,
        attack: fn(&Scene) -> Attempt,
        harmless: fn(&Scene) -> Attempt,
    ) -> Self {
        Self {
            name,
            stopped_by,
            attack,
            harmless,
            place: Place::Shared,
            control: Control::Plain,
            judge: Judge::Inside,
        }
    }

    const fn throwaway(self) -> Self {
        Self {
            control: Control::Throwaway,
            ..self
        }
    }

    const fn apart(self) -> Self {
        Self {
            control: Control::Apart,
            ..self
        }
    }

    const fn traced(self, number: i64) -> Self {
        Self {
            control: Control::Traced(number),
            ..self
        }
    }

    const fn alone(self, limits: fn(&mut Limits)) -> Self {
        Self {
            place: Place::Alone(limits),
            ..self
        }
    }

    const fn judged(self, judge: fn(&Scene, &RunOutcome) -> Attempt) -> Self {
        Self {
            judge: Judge::Outside(judge),
            ..self
        }
    }
}

/// All of them.
pub(crate) const PROBES: &[&[Probe]] = &[
    processes::PROBES,
    namespaces::PROBES,
    kernel::PROBES,
    network::PROBES,
    files::PROBES,
    privileges::PROBES,
    limits::PROBES,
    lasting::PROBES,
];

fn all() -> impl Iterator<Item = &'static Probe> {
    PROBES.iter().copied().flatten()
}

fn find(name: &str) -> Option<&'static Probe> {
    all().find(|probe| probe.name == name)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_probe_has_a_name_of_its_own_and_says_what_stops_it() {
        let names: BTreeSet<_> = all().map(|probe| probe.name).collect();
        assert_eq!(names.len(), all().count());
        assert!(all().all(|probe| probe.stopped_by.len() > 5));
        assert!(names.len() >= 80, "{}", names.len());
    }
}
