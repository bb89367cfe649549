//! The real program over its links, confined as it is.
#![expect(
    clippy::unwrap_used,
    reason = "a test ends where something is not as it has to be"
)]

mod common;

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bulkhead_ledger::read::{Filter, Reader};
use bulkhead_ledger::{LedgerError, verify};
use common::{
    Program, bin, decision, intent, permit, public_key, python_verify, reply, row, session,
    started, up,
};
use protocol::call::Verdict;
use protocol::control::{Peer, Report};
use protocol::event::{Event, Ground};
use protocol::frame::{self, Link};
use protocol::ids::{ChannelId, Digest, RowId, SecretName, TurnId};
use protocol::record::{LedgerReply, LedgerRequest, NewRow};
use protocol::vault::{Subject, VaultChange};

fn request(text: &str) -> NewRow {
    let event = Event::ModelRequest {
        turn: TurnId(1),
        model: text.to_owned(),
        sha256: Digest::of(text),
        bytes: text.len() as u64,
    };
    row("a", event)
}

fn secret_used() -> NewRow {
    let name = SecretName::parse("token").unwrap();
    row(
        "system",
        Event::SecretUsed {
            name,
            subject: Subject::Model,
        },
    )
}

fn is_right(dir: &Path) -> bool {
    let db = dir.join("ledger.db");
    let report = verify(&db, &public_key(dir));
    let (_, right) = python_verify(&db, &dir.join("ledger.pub"));
    assert_eq!(report.ok, right, "{:?}", report.problems);
    right
}

#[test]
fn what_was_appended_is_read_back_and_verifies_while_the_program_runs_and_after() {
    let dir = tempfile::tempdir().unwrap();
    let program = Program::start(dir.path());
    let gateway = program.client(Peer::Gateway);
    assert_eq!(
        gateway
            .append(vec![row("a", started(1)), row("system", up("web"))])
            .unwrap(),
        RowId(1)
    );
    assert_eq!(
        gateway
            .append_and_sign(vec![row("a", reply(1, "hi"))], session("a"))
            .unwrap(),
        RowId(3)
    );
    let read = gateway.read(&session("a"), RowId(0), 10).unwrap();
    let events: Vec<_> = read
        .iter()
        .map(|row| (row.row, row.event.clone()))
        .collect();
    assert_eq!(events, [(RowId(1), started(1)), (RowId(3), reply(1, "hi"))]);
    assert_eq!(gateway.read(&session("a"), RowId(1), 10).unwrap().len(), 1);
    assert_eq!(gateway.read(&session("a"), RowId(0), 1).unwrap().len(), 1);
    assert_eq!(gateway.read(&session("nobody"), RowId(0), 10).unwrap(), []);
    assert!(is_right(dir.path()), "while it runs");

    let reader = Reader::open(&dir.path().join("ledger.db")).unwrap();
    let rows = |filter: &Filter| {
        reader
            .rows(filter)
            .unwrap()
            .iter()
            .map(|row| row.row.0)
            .collect::<Vec<_>>()
    };
    let of_a = || Some(session("a"));
    assert_eq!(rows(&Filter::default()), [1, 2, 3]);
    assert_eq!(
        rows(&Filter {
            session: of_a(),
            ..Filter::default()
        }),
        [1, 3]
    );
    assert_eq!(
        rows(&Filter {
            last: Some(2),
            ..Filter::default()
        }),
        [2, 3]
    );
    assert_eq!(
        rows(&Filter {
            session: of_a(),
            after: 1,
            last: Some(5)
        }),
        [3]
    );
    assert_eq!(
        rows(&Filter {
            last: Some(0),
            ..Filter::default()
        }),
        [0; 0]
    );
    drop(reader);

    assert!(program.stop().success());
    assert!(is_right(dir.path()), "after it stopped");
    let report = verify(&dir.path().join("ledger.db"), &public_key(dir.path()));
    assert_eq!((report.rows, report.unsigned), (3, 0));
}

#[test]
fn a_session_is_unfinished_until_its_turn_has_an_end() {
    let dir = tempfile::tempdir().unwrap();
    let program = Program::start(dir.path());
    let gateway = program.client(Peer::Gateway);
    let failed = Event::TurnFailed {
        turn: TurnId(1),
        fault: protocol::event::TurnEnd::AgentDied,
    };
    gateway
        .append(vec![
            row("c", started(1)),
            row("b", started(1)),
            row("a", started(1)),
        ])
        .unwrap();
    gateway.append(vec![row("b", reply(1, "done"))]).unwrap();
    gateway
        .append(vec![
            row("b", started(2)),
            row("c", reply(1, "done")),
            row("c", started(2)),
        ])
        .unwrap();
    assert_eq!(
        gateway.unfinished().unwrap(),
        [session("a"), session("b"), session("c")]
    );
    gateway
        .append(vec![
            row("a", failed),
            row("b", reply(2, "done")),
            row("c", reply(2, "done")),
        ])
        .unwrap();
    assert_eq!(gateway.unfinished().unwrap(), []);
    // An older turn that nobody ended stays open, whatever came after it.
    gateway
        .append(vec![
            row("a", started(3)),
            row("a", started(4)),
            row("a", reply(4, "done")),
        ])
        .unwrap();
    assert_eq!(gateway.unfinished().unwrap(), [session("a")]);
}

#[test]
fn only_the_gateway_writes_permits_and_reads() {
    let dir = tempfile::tempdir().unwrap();
    let program = Program::start(dir.path());
    let refused = |result: Result<RowId, LedgerError>| {
        assert!(matches!(result, Err(LedgerError::Refused(_))))
    };
    let egress = program.client(Peer::Egress);
    assert_eq!(
        egress.append(vec![request("x"), secret_used()]).unwrap(),
        RowId(1)
    );
    refused(egress.append(vec![row("a", permit(Ground::Policy, Digest::of("")))]));
    refused(egress.append(vec![row("a", decision(Verdict::Allow))]));
    // One that it may not write takes those that it may with it.
    refused(egress.append(vec![request("x"), row("a", intent())]));
    refused(egress.append_and_sign(vec![request("x")], session("a")));
    assert!(matches!(
        egress.read(&session("a"), RowId(0), 9),
        Err(LedgerError::Refused(_))
    ));
    assert!(matches!(egress.unfinished(), Err(LedgerError::Refused(_))));

    let vault = program.client(Peer::Vault);
    assert_eq!(vault.append(vec![secret_used()]).unwrap(), RowId(3));
    refused(vault.append(vec![request("x")]));
    let channel = ChannelId::parse("web").unwrap();
    for peer in [
        Peer::Channel(channel),
        Peer::Agent(session("a")),
        Peer::Sandbox,
        Peer::Workspace,
        Peer::Ledger,
    ] {
        refused(program.client(peer).append(vec![secret_used()]));
    }
    assert_eq!(
        program
            .client(Peer::Gateway)
            .append(vec![row("a", intent())])
            .unwrap(),
        RowId(4)
    );
}

fn vault_changed(generation: u64) -> NewRow {
    let event = Event::VaultChanged {
        generation,
        state: Digest::of(generation.to_be_bytes()),
        change: VaultChange::Added,
        name: None,
    };
    row("vault", event)
}

#[test]
fn only_the_vault_says_what_the_vault_was() {
    let dir = tempfile::tempdir().unwrap();
    let program = Program::start(dir.path());
    let refused = |result: Result<RowId, LedgerError>| {
        assert!(matches!(result, Err(LedgerError::Refused(_))))
    };
    let last = || {
        let stream = program.link(Peer::Vault);
        frame::write(&stream, &LedgerRequest::LastVaultChange).unwrap();
        match frame::read(&stream).unwrap() {
            LedgerReply::Rows { rows } => rows.into_iter().map(|row| row.event).collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(last(), []);
    let gateway = program.client(Peer::Gateway);
    refused(gateway.append(vec![vault_changed(9)]));
    refused(program.client(Peer::Egress).append(vec![vault_changed(9)]));
    // Nor does anything else stand where its rows are looked for.
    refused(gateway.append(vec![row("vault", intent())]));
    let elsewhere = NewRow {
        session: session("a"),
        ..vault_changed(9)
    };
    let vault = program.client(Peer::Vault);
    refused(vault.append(vec![elsewhere]));
    for generation in 1..=3 {
        vault.append(vec![vault_changed(generation)]).unwrap();
    }
    gateway.append(vec![row("a", intent())]).unwrap();
    assert_eq!(last(), [vault_changed(3).event]);

    for peer in [Peer::Gateway, Peer::Egress, Peer::Sandbox] {
        let stream = program.link(peer);
        frame::write(&stream, &LedgerRequest::LastVaultChange).unwrap();
        let reply: LedgerReply = frame::read(&stream).unwrap();
        assert!(matches!(reply, LedgerReply::Failed { .. }), "{reply:?}");
    }
}

#[test]
fn what_is_not_a_request_costs_that_link_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let program = Program::start(dir.path());
    let gateway = program.client(Peer::Gateway);
    let too_long = u32::MAX.to_be_bytes();
    for bytes in [&b"\0\0\0\x02{}"[..], b"\0\0\0\x01x", &too_long] {
        let mut bad = program.link(Peer::Egress);
        bad.write_all(bytes).unwrap();
        assert!(matches!(
            frame::read::<LedgerReply>(&bad),
            Err(frame::LinkError::Closed)
        ));
    }
    assert_eq!(
        gateway.append(vec![row("a", started(1))]).unwrap(),
        RowId(1)
    );
}

#[test]
fn requests_that_make_no_sense_write_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let program = Program::start(dir.path());
    let gateway = program.client(Peer::Gateway);
    let refused = |result: Result<RowId, LedgerError>, part: &str| match result {
        Err(LedgerError::Refused(reason)) => assert!(reason.contains(part), "{reason}"),
        other => panic!("{other:?}"),
    };
    refused(gateway.append(Vec::new()), "at least one row");
    refused(
        gateway.append(vec![row("a", started(1)); 257]),
        "at most 256 rows",
    );
    refused(
        gateway.append(vec![
            row("a", started(1)),
            row("a", reply(1, &"x".repeat(1 << 20))),
        ]),
        "bytes",
    );
    refused(
        gateway.append_and_sign(vec![row("a", started(1))], session("nobody")),
        "nobody",
    );
    assert_eq!(gateway.read(&session("a"), RowId(0), 10).unwrap(), []);
    assert_eq!(
        gateway.append(vec![row("a", started(1)); 256]).unwrap(),
        RowId(1)
    );
    assert!(is_right(dir.path()));
}

#[test]
fn rows_that_do_not_fit_one_frame_are_read_in_several() {
    let dir = tempfile::tempdir().unwrap();
    let program = Program::start(dir.path());
    let gateway = program.client(Peer::Gateway);
    let big = "x".repeat(1_000_000);
    for turn in 1..=6 {
        gateway.append(vec![row("a", reply(turn, &big))]).unwrap();
    }
    let rows = gateway.read(&session("a"), RowId(0), 100).unwrap();
    assert_eq!(
        rows.iter().map(|row| row.row.0).collect::<Vec<_>>(),
        [1, 2, 3, 4, 5, 6]
    );
    assert_eq!(gateway.read(&session("a"), RowId(0), 5).unwrap().len(), 5);
}

#[test]
fn many_links_write_at_once_and_the_record_is_one_chain() {
    let dir = tempfile::tempdir().unwrap();
    let program = Program::start(dir.path());
    let links = [Peer::Gateway, Peer::Egress].map(|peer| program.client(peer));
    let clients: Vec<_> = (0..8).map(|n| &links[n % 2]).collect();
    let mut firsts: Vec<u64> = std::thread::scope(|scope| {
        let threads: Vec<_> = clients
            .iter()
            .enumerate()
            .map(|(n, client)| {
                scope.spawn(move || {
                    let one = |i| {
                        client
                            .append(vec![request(&format!("{n}/{i}")), request("next")])
                            .unwrap()
                            .0
                    };
                    (0..20).map(one).collect::<Vec<_>>()
                })
            })
            .collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect()
    });
    firsts.sort_unstable();
    // Two rows for each request, none between them.
    assert_eq!(firsts, (0..160).map(|n| 2 * n + 1).collect::<Vec<_>>());
    let rows = clients[0].read(&session("a"), RowId(0), 1000).unwrap();
    assert_eq!(rows.len(), 320);
    for pair in rows.chunks(2) {
        assert!(matches!(&pair[1].event, Event::ModelRequest { model, .. } if model == "next"));
    }
    assert!(is_right(dir.path()));
}

#[test]
fn a_ledger_that_is_stopped_reads_as_unavailable_and_answers_on_a_new_link_when_it_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let program = Program::start(dir.path());
    let gateway = program
        .client(Peer::Gateway)
        .with_limit(Duration::from_millis(300));
    gateway.append(vec![row("a", started(1))]).unwrap();
    program.signal("-STOP");
    let start = Instant::now();
    assert!(matches!(
        gateway.append(vec![row("a", intent())]),
        Err(LedgerError::TimedOut)
    ));
    assert!(matches!(
        gateway.append(vec![row("a", intent())]),
        Err(LedgerError::Unavailable)
    ));
    assert!(start.elapsed() < Duration::from_secs(5));
    program.signal("-CONT");
    assert!(matches!(
        gateway.append(vec![row("a", intent())]),
        Err(LedgerError::Unavailable)
    ));
    gateway.replace(program.link(Peer::Gateway));
    gateway.append(vec![row("a", reply(1, "x"))]).unwrap();
}

#[test]
fn what_a_peer_said_on_its_last_link_is_never_written_after_what_it_says_on_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let program = Program::start(dir.path());
    let old = program.link(Peer::Gateway);
    // Many, so that some are not read yet when the next link is there.
    for _ in 0..200 {
        let rows = vec![request("given up")];
        frame::write(&old, &LedgerRequest::Append { rows }).unwrap();
    }
    let gateway = program.client(Peer::Gateway);
    let seen = gateway.read(&session("a"), RowId(0), 1000).unwrap().len();
    assert!(seen < 200, "all was written before there was a second link");
    std::thread::sleep(Duration::from_millis(100));
    let next = gateway.append(vec![request("next")]).unwrap();
    assert_eq!(next, RowId(seen as u64 + 1));
}

#[test]
fn what_was_acknowledged_survives_kill_9_in_the_middle_of_appending() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = Vec::new();
    for round in 0..6_u64 {
        let program = Program::start(dir.path());
        let link = Link::<LedgerRequest, LedgerReply>::new(program.link(Peer::Gateway));
        let written = std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let mut written = Vec::new();
                for i in 0..10_000_u64 {
                    let text = format!("{round}/{i}");
                    let rows = vec![row("a", reply(i, &text)), row("b", reply(i, &text))];
                    let request = match i % 3 {
                        0 => LedgerRequest::AppendAndSign {
                            rows,
                            session: session("a"),
                        },
                        _ => LedgerRequest::Append { rows },
                    };
                    if link.send(&request).is_err() {
                        break;
                    }
                    match link.receive() {
                        Ok(LedgerReply::Appended { first }) => written.push((first, text)),
                        Ok(other) => panic!("{other:?}"),
                        Err(_) => break,
                    }
                }
                written
            });
            std::thread::sleep(Duration::from_millis(60 + 37 * round));
            program.kill();
            writer.join().unwrap()
        });
        assert!(!written.is_empty());
        acknowledged.extend(written);
        assert!(is_right(dir.path()), "as the crash left it");
    }
    let program = Program::start(dir.path());
    let gateway = program.client(Peer::Gateway);
    let rows = gateway.read(&session("a"), RowId(0), 100_000).unwrap();
    let texts: std::collections::HashMap<_, _> = rows
        .iter()
        .map(|row| match &row.event {
            Event::Reply { text, .. } => (row.row, text.as_str()),
            other => panic!("{other:?}"),
        })
        .collect();
    for (first, text) in &acknowledged {
        assert_eq!(texts.get(first), Some(&text.as_str()));
    }
    // All or none: where there is a row of one session, there is the other's.
    assert_eq!(
        rows.len(),
        gateway
            .read(&session("b"), RowId(0), 100_000)
            .unwrap()
            .len()
    );
    assert!(is_right(dir.path()));
}

#[test]
fn rows_without_a_turn_are_signed_within_a_moment() {
    let dir = tempfile::tempdir().unwrap();
    let program = Program::start(dir.path());
    program
        .client(Peer::Gateway)
        .append(vec![row("system", up("web"))])
        .unwrap();
    let (db, key) = (dir.path().join("ledger.db"), public_key(dir.path()));
    let end = Instant::now() + Duration::from_secs(30);
    while verify(&db, &key).unsigned > 0 {
        assert!(Instant::now() < end, "never signed");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn the_folder_and_the_key_are_for_its_user_alone() {
    let dir = tempfile::tempdir().unwrap();
    let inner = dir.path().join("ledger");
    let program = Program::start(&inner);
    let mode = |name: &str| fs::metadata(inner.join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(
        (mode("."), mode("ledger.key"), mode("ledger.db")),
        (0o700, 0o600, 0o600)
    );
    assert_eq!(mode("ledger.db-wal"), 0o600);
    assert!(program.stop().success());
}

#[test]
fn a_second_ledger_on_the_same_folder_says_why_it_cannot_run() {
    let dir = tempfile::tempdir().unwrap();
    let _first = Program::start(dir.path());
    let mut second = Program::spawn(bin(dir.path()).stderr(Stdio::null()));
    let Report::Failed { reason } = second.report() else {
        panic!("it runs")
    };
    assert!(reason.contains("another bulkhead-ledger"), "{reason}");
    assert_eq!(second.wait().code(), Some(1));
}

#[test]
fn a_ledger_without_a_supervisor_ends() {
    let dir = tempfile::tempdir().unwrap();
    let mut program = Program::start(dir.path());
    let gateway = program.client(Peer::Gateway);
    gateway.append(vec![row("a", started(1))]).unwrap();
    // Its end of the control link is closed as by a supervisor that died.
    let (unused, _) = UnixStream::pair().unwrap();
    program.control = protocol::control::SupervisorEnd::new(unused);
    assert!(program.wait().success());
    assert!(is_right(dir.path()));
    let output = bin(dir.path()).arg("more").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_full_disk_is_said_and_the_ledger_goes_on_when_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let disk = dir.path().join("disk");
    fs::create_dir(&disk).unwrap();
    // A mount of its own, which nobody else sees and which is gone with the program.
    let script = "mount -t tmpfs -o size=600k tmpfs \"$1\" && exec \"$2\" --dir \"$1/ledger\"";
    let mut command = Command::new("unshare");
    command.args([
        "--mount",
        "--propagation",
        "private",
        "sh",
        "-c",
        script,
        "sh",
    ]);
    command
        .arg(&disk)
        .arg(env!("CARGO_BIN_EXE_bulkhead-ledger"))
        .stderr(Stdio::null());
    let program = Program::spawn(&mut command);
    program.wait_ready();
    let gateway = program.client(Peer::Gateway);
    let text = "x".repeat(20_000);
    let mut written: u64 = 0;
    let reason = loop {
        match gateway.append(vec![row("a", reply(written + 1, &text))]) {
            Ok(first) => {
                written += 1;
                assert_eq!(first, RowId(written));
            }
            Err(LedgerError::Refused(reason)) => break reason,
            Err(other) => panic!("{other}"),
        }
        assert!(written < 100, "the disk never was full");
    };
    assert!(written > 3 && reason.contains("full"), "{written} {reason}");
    // It goes on answering, and what is there can be read.
    assert!(matches!(
        gateway.append(vec![row("a", reply(0, &text))]),
        Err(LedgerError::Refused(_))
    ));
    assert_eq!(
        gateway.read(&session("a"), RowId(0), 1000).unwrap().len() as u64,
        written
    );

    let room = Command::new("nsenter")
        .args(["--mount", "--target", &program.child.id().to_string()])
        .args(["mount", "-o", "remount,size=8m"])
        .arg(&disk)
        .status()
        .unwrap();
    assert!(room.success());
    let row_after = gateway
        .append_and_sign(vec![row("a", reply(written + 1, &text))], session("a"))
        .unwrap();
    assert_eq!(row_after, RowId(written + 1));
    let copy = dir.path().join("copy");
    fs::create_dir(&copy).unwrap();
    let inside = format!("/proc/{}/root{}/ledger", program.child.id(), disk.display());
    for name in ["ledger.db", "ledger.db-wal", "ledger.pub"] {
        fs::copy(format!("{inside}/{name}"), copy.join(name)).unwrap();
    }
    assert!(is_right(&copy));
    assert!(program.stop().success());
}
