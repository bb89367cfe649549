//! What each program may do, as data.
//!
//! A [`Rule`] is a system call and when it is allowed; a group is a slice of rules that belong
//! together; a profile is a list of groups. Each call or group that is not plainly needed says why
//! it is there. Nothing here executes.

mod boxes;
mod groups;
mod programs;

use rustix::process::Resource;
use rustix::thread::CapabilitySet;

pub(crate) use boxes::of_box;
pub(crate) use programs::of;

/// The profile of a program.
pub(crate) struct Profile {
    /// Which capabilities stay if the program runs as root. Empty but for the supervisor and the
    /// sandbox: to map its own user id into a box, root needs `CAP_SETFCAP` (user_namespaces(7)),
    /// which gives a root process nothing that its user id does not give it already; and the supervisor's
    /// programs take users of their own, who have to be ended all the same.
    pub(crate) keep_as_root: CapabilitySet,
    /// As whom it goes on if root started it.
    pub(crate) identity: Identity,
    /// Whether it dies with its parent.
    pub(crate) lifetime: Lifetime,
    /// Which namespaces it has of its own.
    pub(crate) apart: Apart,
    /// What it may take of the machine.
    pub(crate) limits: &'static [Limit],
    /// Its Landlock domain.
    pub(crate) reach: Reach,
    /// Its system calls.
    pub(crate) calls: Calls,
}

/// As whom a program goes on that root started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Identity {
    /// As root.
    Given,
    /// As a user and a group that no other process has.
    Own(FilesAs),
}

/// Whom the kernel takes such a program for where files are opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FilesAs {
    /// Its own user, who has none.
    Itself,
    /// Root, whose its files are and stay: the home may be closed to everybody else, and has to be good for an
    /// ordinary start as well.
    Root,
}

/// Whose death ends a program.
pub(crate) enum Lifetime {
    /// Only its own.
    Own,
    /// That of the thread that started it: the kernel then kills it.
    OfParent,
}

/// Which namespaces a program has of its own. In its user namespace it has no capability and nobody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Apart {
    /// None: children inherit them, and the supervisor's need the machine's in sum.
    Nowhere,
    /// A user namespace, and one of System V and POSIX IPC.
    User,
    /// The same, and a network namespace with nothing in it; its loopback is down.
    Network,
    /// The same, and a mount namespace in which it can write to its own folders only and does not see
    /// those that are hidden from it.
    View,
}

/// A limit of setrlimit(2), soft and hard; a lower one that is there already stays.
#[derive(Clone, Copy)]
pub(crate) struct Limit(pub(crate) Resource, pub(crate) u64);

/// What a Landlock domain leaves.
pub(crate) enum Reach {
    /// No domain: children inherit it, and the supervisor's need everything in sum.
    Everything,
    /// Files stay as they are, because boxes are built from mounts, which no domain that knows files allows. Of
    /// TCP one port, [`protocol::box_link::PORT`]: on the loopback of a box the builder listens there, and what runs
    /// in that box connects to it.
    AllFilesAndTheBoxPort,
    /// The files it names, and these of the system as far as they exist, to read. No TCP.
    OwnFiles(&'static [&'static str]),
    /// The same, and TCP out.
    OwnFilesAndNetwork(&'static [&'static str]),
}

/// A list of system calls. What is refused fails with `EPERM`; a call of another architecture kills.
pub(crate) enum Calls {
    /// All but these: for a program whose children differ too much for a list.
    AllBut(&'static [&'static [Rule]]),
    /// Only these.
    Only {
        /// What is allowed.
        allowed: &'static [&'static [Rule]],
        /// What fails with another error than `EPERM`, because callers then use something else.
        absent: &'static [(&'static [Rule], i32)],
    },
}

/// A system call, and when the rule holds.
pub(crate) struct Rule {
    /// Its name.
    pub(crate) name: &'static str,
    /// Its number.
    pub(crate) number: i64,
    /// Any of these, each of which is all of its tests. Empty: always.
    pub(crate) when: &'static [&'static [Test]],
}

/// A test of one argument, counted from 0. Arguments are read as the 32-bit numbers they are.
pub(crate) enum Test {
    /// Is this.
    Is(u8, u32),
    /// Is not this.
    Not(u8, u32),
    /// Has none of these bits.
    Clear(u8, u32),
    /// Has all of these bits.
    Set(u8, u32),
    /// Has, of these bits, exactly those.
    Bits(u8, u32, u32),
    /// Is the process id of who installs the filter.
    Own(u8),
}

/// Rules from the names of `libc`'s numbers, with tests or without.
macro_rules! calls {
    ($($name:ident $(($($test:expr),+))?),* $(,)?) => {
        &[$($crate::profiles::Rule {
            name: stringify!($name),
            number: libc::$name,
            when: &[$(&[$($test),+])?],
        }),*]
    };
}
pub(crate) use calls;
