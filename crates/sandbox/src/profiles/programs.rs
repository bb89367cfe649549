//! The profile of each program.

use rustix::process::Resource::{Data, Nofile, Nproc};
use rustix::thread::CapabilitySet;

use super::boxes::sandbox_service;
use super::groups::{
    ACCEPT, ASYNC, BASE, CLONE3, KEEP_FILES, LINKS, NETWORK, NOBODY, NOBODY_HERE, OLD_ASYNC,
    OLD_BASE, OLD_READ_FILES, OLD_WRITE_FILES, OPEN_FILES, READ_FILES, SECRETS, SPLICE, THREADS,
    UNIX, WRITE_FILES,
};
use super::{Apart, Calls, FilesAs, Identity, Lifetime, Limit, Profile, Reach, Rule};
use crate::confine::Program;
use crate::users::TO_GIVE_IDS;

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

const GIB: u64 = 1 << 30;

/// The profile of a program. Of its limits, descriptors and threads are what its links take, several times
/// over: a thread or two for each, and a descriptor for each folder, browser or tunnel. Memory is far above what
/// the largest frames take, and keeps one program from taking that of all.
pub(crate) fn of(program: Program) -> Profile {
    match program {
        // Its filter is every program's and every box' as well, and so is what it keeps.
        Program::Supervisor => Profile {
            keep_as_root: CapabilitySet::SETFCAP.union(TO_GIVE_IDS),
            identity: Identity::Given,
            lifetime: Lifetime::Own,
            apart: Apart::Nowhere,
            limits: &[],
            reach: Reach::Everything,
            calls: Calls::AllBut(&[NOBODY, NOBODY_HERE]),
        },
        // Its filter, its domain and its limits are every box' as well.
        Program::Sandbox => runner(Apart::View),
        // In a container, whose namespaces are the engine's.
        Program::Inner => runner(Apart::Nowhere),
        Program::Egress => confined(
            Identity::Own(FilesAs::Itself),
            Reach::OwnFilesAndNetwork(NAME_FILES),
            Apart::User,
            &[
                Limit(Nofile, 4096),
                Limit(Nproc, 1024),
                Limit(Data, 2 * GIB),
            ],
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
            Identity::Own(FilesAs::Root),
            Reach::OwnFiles(RANDOM),
            Apart::Network,
            &[
                Limit(Nofile, 1024),
                Limit(Nproc, 1024),
                Limit(Data, 4 * GIB),
            ],
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
            Identity::Own(FilesAs::Root),
            Reach::OwnFiles(RANDOM),
            Apart::Network,
            &[Limit(Nofile, 256), Limit(Nproc, 128), Limit(Data, 4 * GIB)],
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
            Identity::Own(FilesAs::Root),
            Reach::OwnFiles(&[]),
            Apart::Network,
            &[Limit(Nofile, 512), Limit(Nproc, 512), Limit(Data, GIB)],
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
        // The runner starts it within its own user namespace, where there is no other user. Its socket is the
        // engine's; connecting is what the owner of that file allows, not Landlock. Of /proc it reads whether those
        // still live that started containers.
        Program::Engine => confined(
            Identity::Given,
            Reach::OwnFiles(&["/proc"]),
            Apart::Network,
            &[Limit(Nofile, 256), Limit(Nproc, 64), Limit(Data, GIB)],
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
        // It refuses files of others, and in the user namespace of a user of its own root would be one of them.
        Program::Workspace => confined(
            Identity::Given,
            Reach::OwnFiles(&[]),
            Apart::Network,
            &[Limit(Nofile, 4096), Limit(Nproc, 128), Limit(Data, 4 * GIB)],
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
        Program::Agent => confined(
            Identity::Own(FilesAs::Itself),
            Reach::OwnFiles(&[]),
            Apart::Network,
            &[Limit(Nofile, 64), Limit(Nproc, 16), Limit(Data, GIB)],
            &[BASE, OLD_BASE, THREADS, LINKS],
        ),
        Program::ChannelWeb => confined(
            Identity::Own(FilesAs::Itself),
            Reach::OwnFiles(&[]),
            Apart::Network,
            &[Limit(Nofile, 1024), Limit(Nproc, 64), Limit(Data, GIB)],
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
            Identity::Own(FilesAs::Itself),
            Reach::OwnFiles(&[]),
            Apart::Network,
            &[Limit(Nofile, 256), Limit(Nproc, 64), Limit(Data, GIB)],
            &[
                BASE,
                OLD_BASE,
                THREADS,
                LINKS,
                ASYNC,
                OLD_ASYNC,
                READ_FILES,
                OLD_READ_FILES,
                OPEN_FILES,
                SECRETS,
            ],
        ),
    }
}

/// A program that starts no other.
fn confined(
    identity: Identity,
    reach: Reach,
    apart: Apart,
    limits: &'static [Limit],
    allowed: &'static [&'static [Rule]],
) -> Profile {
    Profile {
        keep_as_root: CapabilitySet::empty(),
        identity,
        lifetime: Lifetime::OfParent,
        apart,
        limits,
        reach,
        calls: Calls::Only {
            allowed,
            absent: &[(CLONE3, libc::ENOSYS)],
        },
    }
}

/// What builds boxes. They inherit its limits, so it has none; each has its own.
fn runner(apart: Apart) -> Profile {
    Profile {
        keep_as_root: CapabilitySet::SETFCAP,
        // It gives boxes the user that it has, whose files the workspace and the host's programs are.
        identity: Identity::Given,
        lifetime: Lifetime::OfParent,
        apart,
        limits: &[],
        reach: Reach::AllFilesAndTheBoxPort,
        calls: sandbox_service(),
    }
}
