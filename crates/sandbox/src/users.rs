//! A user and a group of its own for each program that root started.
//!
//! What keeps programs of the same user from one another is what each did to itself. The kernel's oldest border, the
//! user id, holds whatever became of that: without it there is no signal and no tracing from one to another.

use std::fs;

use rustix::process::{DumpableBehavior, geteuid, set_dumpable_behavior};
use rustix::thread::{
    CapabilitySet, CapabilitySets, Gid, Uid, set_capabilities, set_keep_capabilities,
    set_thread_res_gid, set_thread_res_uid,
};

use crate::profiles::{FilesAs, Identity};
use crate::sys;

/// The first user and group id that programs take: this, and the process id on top. No two that run have the same,
/// of whatever installation, and nobody has to give ids out or to take them back.
///
/// 0x7800_0000, so the last is 0x783f_ffff (`PID_MAX_LIMIT` of the kernel is 2^22). Debian's policy (9.2.2) gives
/// these to nobody, systemd leaves 0x7000_0000 to 0x7ffd_ffff free (its UIDS-GIDS), ids for containers end below,
/// and so do those that directory services make up (2,000,200,000).
pub const FIRST_ID: u32 = 0x7800_0000;

/// What the supervisor needs as root, besides what its programs need: `CAP_KILL`, since they are others' then.
pub(crate) const TO_GIVE_IDS: CapabilitySet = CapabilitySet::SETUID
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::KILL);

/// Takes the ids. The process must have one thread and no supplementary groups. Clears the signal of the parent's
/// death (prctl(2)).
pub(crate) fn take(identity: Identity) -> Result<(), String> {
    if !geteuid().is_root() {
        return Ok(());
    }
    let files = match identity {
        Identity::Given => return Ok(()),
        Identity::Own(files) => files,
    };
    let own = FIRST_ID + std::process::id();
    match place_here(own)? {
        Place::NobodyElse => return Ok(()),
        Place::Missing => {
            return Err(format!(
                "this user namespace has no user {own} (/proc/self/uid_map), and programs that root starts have users of their \
             own. Start Bulkhead as an ordinary user, or map the ids from {FIRST_ID} on, 4194304 of them"
            ));
        }
        Place::Mapped => {}
    }
    become_user(own, files).map_err(|error| {
        format!(
            "no user and group of its own ({own}): {error}. As root it needs CAP_SETUID and CAP_SETGID; or start Bulkhead \
             as an ordinary user"
        )
    })
}

fn become_user(own: u32, files: FilesAs) -> std::io::Result<()> {
    let (uid, gid) = (Uid::from_raw(own), Gid::from_raw(own));
    set_keep_capabilities(true)?;
    set_thread_res_gid(gid, gid, gid)?;
    set_thread_res_uid(uid, uid, uid)?;
    set_keep_capabilities(false)?;
    let left = match files {
        FilesAs::Itself => CapabilitySet::empty(),
        FilesAs::Root => CapabilitySet::SETUID | CapabilitySet::SETGID,
    };
    set_capabilities(
        None,
        CapabilitySets {
            effective: left,
            permitted: left,
            inheritable: CapabilitySet::empty(),
        },
    )?;
    // /proc/self, where its user namespace is described, has to be that of whom its files are: root's when it
    // cannot be dumped. A change of ids leaves that as fs.suid_dumpable says.
    match files {
        FilesAs::Itself => set_dumpable_behavior(DumpableBehavior::Dumpable)?,
        FilesAs::Root => {
            sys::files_as_root()?;
            set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
        }
    }
    Ok(())
}

/// Where a user id is to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// There is one.
    Mapped,
    /// There are several, but not this one.
    Missing,
    /// Root is the only user here: the name that an ordinary user of the machine has in a namespace of its own.
    NobodyElse,
}

fn place_here(id: u32) -> Result<Place, String> {
    let map = fs::read_to_string("/proc/self/uid_map");
    let map = map.map_err(|error| format!("which users there are: /proc/self/uid_map: {error}"))?;
    Ok(place(&map, id))
}

/// Reads a map of user_namespaces(7): lines of the first id inside, the first outside, how many.
fn place(map: &str, id: u32) -> Place {
    let line = |line: &str| {
        let mut numbers = line.split_whitespace().map(str::parse::<u64>);
        let (first, _, count) = (numbers.next()?, numbers.next()?, numbers.next()?);
        Some((first.ok()?, count.ok()?))
    };
    let ranges: Vec<(u64, u64)> = map.lines().filter_map(line).collect();
    let has = |(first, count): &(u64, u64)| (*first..first + count).contains(&u64::from(id));
    if ranges.iter().any(has) {
        return Place::Mapped;
    }
    match ranges.as_slice() {
        [(0, 1)] => Place::NobodyElse,
        _ => Place::Missing,
    }
}

/// Fails where the supervisor, as root, could start programs and not end them.
pub(crate) fn may_give() -> Result<(), String> {
    if !geteuid().is_root() || place_here(FIRST_ID)? == Place::NobodyElse {
        return Ok(());
    }
    let had = rustix::thread::capabilities(None).map_err(|error| format!("capget: {error}"))?;
    match TO_GIVE_IDS.difference(had.permitted).is_empty() {
        true => Ok(()),
        false => Err(
            "as root it needs CAP_SETUID, CAP_SETGID and CAP_KILL: its programs have users of their own. Start Bulkhead as \
             an ordinary user, or with these"
                .to_owned(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_taken_only_where_there_is_one_and_only_a_lonely_root_does_without() {
        let of = |map: &str| place(map, FIRST_ID + 300);
        assert_eq!(of("         0          0 4294967295\n"), Place::Mapped);
        assert_eq!(
            of("0 100000 65536\n2013265920 2013265920 4194304\n"),
            Place::Mapped
        );
        assert_eq!(of("0 100000 65536\n"), Place::Missing);
        assert_eq!(
            of("0 100000 65536\n2013265920 2013265920 300\n"),
            Place::Missing
        );
        assert_eq!(of("0 1000 1\n"), Place::NobodyElse);
        assert_eq!(of("0 1000 1\n1 100000 65536\n"), Place::Missing);
        assert_eq!(of(""), Place::Missing);
    }
}
