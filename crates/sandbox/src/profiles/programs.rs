//! The profile of each program.

use rustix::thread::CapabilitySet;

use super::boxes::sandbox_service;
use super::groups::{
    ACCEPT, ASYNC, BASE, CLONE3, KEEP_FILES, LINKS, NETWORK, NOBODY, NOBODY_HERE, OLD_ASYNC,
    OLD_BASE, OLD_READ_FILES, OLD_WRITE_FILES, READ_FILES, SECRETS, SPLICE, THREADS, UNIX,
    WRITE_FILES,
};
use super::{Calls, Lifetime, Profile, Reach, Rule};
use crate::confine::Program;

/// Where the C library looks up how names are resolved.
const NAME_FILES: &[&str] = &[
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/nsswitch.conf",
    "/etc/host.conf",
    "/etc/gai.conf",
    "/etc/services",
];

/// SQLite seeds the salts of its write-ahead log from it, or else from the clock.
const RANDOM: &[&str] = &["/dev/urandom"];

/// The profile of a program.
pub(crate) fn of(program: Program) -> Profile {
    match program {
        // Its filter is every program's and every box' as well, and so is what it keeps.
        Program::Supervisor => Profile {
            keep_as_root: CapabilitySet::SETFCAP,
            lifetime: Lifetime::Own,
            reach: Reach::Everything,
            calls: Calls::AllBut(&[NOBODY, NOBODY_HERE]),
        },
        // Its filter and its domain are every box' as well.
        Program::Sandbox => Profile {
            keep_as_root: CapabilitySet::SETFCAP,
            lifetime: Lifetime::OfParent,
            reach: Reach::AllFilesAndTheBoxPort,
            calls: sandbox_service(),
        },
        Program::Egress => confined(
            Reach::OwnFilesAndNetwork(NAME_FILES),
            &[
                BASE,
                OLD_BASE,
                THREADS,
                LINKS,
                ASYNC,
                OLD_ASYNC,
                NETWORK,
                ACCEPT,
                SPLICE,
                READ_FILES,
                OLD_READ_FILES,
                SECRETS,
            ],
        ),
        Program::Gateway => confined(
            Reach::OwnFiles(RANDOM),
            &[
                BASE,
                OLD_BASE,
                THREADS,
                LINKS,
                ACCEPT,
                READ_FILES,
                OLD_READ_FILES,
                WRITE_FILES,
                OLD_WRITE_FILES,
            ],
        ),
        Program::Ledger => confined(
            Reach::OwnFiles(RANDOM),
            &[
                BASE,
                OLD_BASE,
                THREADS,
                LINKS,
                READ_FILES,
                OLD_READ_FILES,
                WRITE_FILES,
                OLD_WRITE_FILES,
            ],
        ),
        Program::Vault => confined(
            Reach::OwnFiles(&[]),
            &[
                BASE,
                OLD_BASE,
                THREADS,
                LINKS,
                ACCEPT,
                READ_FILES,
                OLD_READ_FILES,
                WRITE_FILES,
                OLD_WRITE_FILES,
                SECRETS,
            ],
        ),
        // Its socket is the engine's; connecting is what the owner of that file allows, not Landlock. Of /proc it
        // reads whether those still live that started containers.
        Program::Engine => confined(
            Reach::OwnFiles(&["/proc"]),
            &[
                BASE,
                OLD_BASE,
                THREADS,
                LINKS,
                ASYNC,
                OLD_ASYNC,
                UNIX,
                READ_FILES,
                OLD_READ_FILES,
                WRITE_FILES,
                OLD_WRITE_FILES,
            ],
        ),
        Program::Workspace => confined(
            Reach::OwnFiles(&[]),
            &[
                BASE,
                OLD_BASE,
                THREADS,
                LINKS,
                READ_FILES,
                OLD_READ_FILES,
                WRITE_FILES,
                OLD_WRITE_FILES,
                KEEP_FILES,
            ],
        ),
        // Owns no file: it cannot even open one.
        Program::Agent => confined(Reach::OwnFiles(&[]), &[BASE, OLD_BASE, THREADS, LINKS]),
        Program::ChannelWeb => confined(
            Reach::OwnFiles(&[]),
            &[
                BASE,
                OLD_BASE,
                THREADS,
                LINKS,
                ACCEPT,
                ASYNC,
                OLD_ASYNC,
                READ_FILES,
                OLD_READ_FILES,
            ],
        ),
        Program::ChannelTelegram => confined(
            Reach::OwnFiles(&[]),
            &[
                BASE,
                OLD_BASE,
                THREADS,
                LINKS,
                ASYNC,
                OLD_ASYNC,
                READ_FILES,
                OLD_READ_FILES,
                WRITE_FILES,
                OLD_WRITE_FILES,
                SECRETS,
            ],
        ),
    }
}

/// A program that starts no other.
fn confined(reach: Reach, allowed: &'static [&'static [Rule]]) -> Profile {
    Profile {
        keep_as_root: CapabilitySet::empty(),
        lifetime: Lifetime::OfParent,
        reach,
        calls: Calls::Only {
            allowed,
            absent: &[(CLONE3, libc::ENOSYS)],
        },
    }
}
