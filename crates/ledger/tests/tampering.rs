//! Whatever is done to the file, both verifiers find it and name the row.
#![expect(
    clippy::unwrap_used,
    reason = "a test ends where something is not as it has to be"
)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use bulkhead_ledger::chain::{self, GENESIS, Link};
use bulkhead_ledger::store::{OpenError, Store};
use bulkhead_ledger::{Report, verify};
use common::{make_record, python_verify};
use protocol::ids::{Digest, PublicKey};
use protocol::time::Millis;
use rusqlite::{Connection, params};

const ROWS: u64 = 15;
const COLUMNS: [&str; 7] = ["time", "session", "seq", "event", "prev", "hash", "running"];
const HEAD_COLUMNS: [&str; 9] = [
    "head",
    "session",
    "seq",
    "row",
    "hash",
    "rows",
    "running",
    "time",
    "signature",
];

struct Original {
    dir: tempfile::TempDir,
    db: PathBuf,
    key: PublicKey,
}

impl Original {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (db, key) = make_record(dir.path());
        Self { dir, db, key }
    }

    fn public(&self) -> PathBuf {
        self.dir.path().join("ledger.pub")
    }

    /// A copy, changed by somebody who knows SQLite and puts the triggers back.
    fn tampered(&self, change: impl FnOnce(&Connection)) -> PathBuf {
        let copy = self.dir.path().join("copy.db");
        fs::copy(&self.db, &copy).unwrap();
        let db = Connection::open(&copy).unwrap();
        // Only the copy, which may be lost.
        db.pragma_update(None, "synchronous", "OFF").unwrap();
        let triggers: Vec<(String, String)> = {
            let mut query = db
                .prepare("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'")
                .unwrap();
            let found = query
                .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
                .unwrap();
            found.map(Result::unwrap).collect()
        };
        for (name, _) in &triggers {
            db.execute_batch(&format!("DROP TRIGGER {name}")).unwrap();
        }
        change(&db);
        for (_, sql) in &triggers {
            db.execute_batch(sql).unwrap();
        }
        copy
    }

    /// What this verifier says of a copy that was changed so, after the other one said the same.
    fn report(&self, change: impl FnOnce(&Connection)) -> Report {
        let copy = self.tampered(change);
        let report = verify(&copy, &self.key);
        let (other, right) = python_verify(&copy, &self.public());
        assert_eq!(other["ok"], right);
        assert_eq!(
            other["ok"], report.ok,
            "the verifiers disagree: {report:?} {other}"
        );
        report
    }

    /// Only by this verifier, for the many.
    fn quick_report(&self, change: impl FnOnce(&Connection)) -> Report {
        verify(&self.tampered(change), &self.key)
    }
}

fn names(report: &Report, row: u64) -> bool {
    report
        .problems
        .iter()
        .any(|problem| problem.row == Some(row))
}

#[test]
fn a_record_that_nobody_touched_is_right_for_both_verifiers() {
    let original = Original::new();
    let report = verify(&original.db, &original.key);
    assert_eq!(report.problems, []);
    assert_eq!(
        (report.rows, report.sessions, report.tree_size),
        (ROWS, 3, ROWS)
    );
    assert_eq!((report.unsigned, report.unknown), (1, 1));
    let (other, right) = python_verify(&original.db, &original.public());
    assert!(right);
    assert_eq!(other, serde_json::to_value(&report).unwrap());
    assert!(
        !original.db.with_extension("db-wal").exists(),
        "verification left files behind"
    );
}

#[test]
fn the_json_form_has_the_keys_that_scripts_rely_on() {
    let original = Original::new();
    let report = original.quick_report(|db| {
        db.execute("UPDATE rows SET time = 1 WHERE row = 4", [])
            .unwrap();
    });
    let json = serde_json::to_value(&report).unwrap();
    let mut keys: Vec<_> = json
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    keys.sort_unstable();
    assert_eq!(
        keys,
        ["head", "ok", "problems", "rows", "sessions", "tree_size"]
    );
    assert_eq!(json["problems"][0]["row"], 4);
    assert_eq!(json["problems"][0]["session"], "b");
}

/// Another value of the same type: a number one higher, a text or bytes with one byte changed.
fn change_value(db: &Connection, table: &str, column: &str, id: u64, place: fn(usize) -> usize) {
    let key = if table == "rows" { "row" } else { "head" };
    let read = format!("SELECT {column} FROM {table} WHERE {key} = ?1");
    let changed: rusqlite::types::Value = db.query_row(&read, [id], |row| row.get(0)).unwrap();
    let changed = match changed {
        rusqlite::types::Value::Integer(n) => rusqlite::types::Value::Integer(n + 1),
        rusqlite::types::Value::Text(text) => {
            let mut bytes = text.into_bytes();
            let at = place(bytes.len());
            // Stays ASCII; `{` becomes `z`, so the JSON breaks at either end.
            bytes[at] ^= 1;
            rusqlite::types::Value::Text(String::from_utf8(bytes).unwrap())
        }
        rusqlite::types::Value::Blob(mut bytes) => {
            let at = place(bytes.len());
            bytes[at] ^= 1;
            rusqlite::types::Value::Blob(bytes)
        }
        other => panic!("{other:?} in {table}.{column}"),
    };
    // An index over JSON does not take what is not JSON.
    let index: String = db
        .query_row(
            "SELECT sql FROM sqlite_schema WHERE name = 'turn_marks'",
            [],
            |row| row.get(0),
        )
        .unwrap();
    db.execute_batch("DROP INDEX turn_marks").unwrap();
    db.execute(
        &format!("UPDATE {table} SET {column} = ?1 WHERE {key} = ?2"),
        params![changed, id],
    )
    .unwrap();
    if db.execute_batch(&index).is_err() {
        db.execute_batch("CREATE INDEX turn_marks ON rows(session)")
            .unwrap();
    }
}

const PLACES: [fn(usize) -> usize; 3] = [|_| 0, |len| len / 2, |len| len - 1];

#[test]
fn one_byte_of_any_column_of_any_row_is_found_and_the_row_is_named() {
    let original = Original::new();
    for column in COLUMNS {
        for id in 1..=ROWS {
            for place in PLACES {
                let report =
                    original.quick_report(|db| change_value(db, "rows", column, id, place));
                assert!(
                    names(&report, id),
                    "{column} of row {id}: {:?}",
                    report.problems
                );
            }
        }
        let report = original.report(|db| change_value(db, "rows", column, 7, PLACES[1]));
        assert!(!report.ok);
    }
}

#[test]
fn one_byte_of_any_column_of_a_signature_is_found() {
    let original = Original::new();
    let heads = [(1, 4), (2, 6), (3, 9), (4, 11), (5, 14)];
    for column in HEAD_COLUMNS {
        for (id, covered) in heads {
            for place in PLACES {
                // Two signatures cannot have one number; the highest can.
                if column == "head" && id != 5 {
                    continue;
                }
                let report =
                    original.quick_report(|db| change_value(db, "heads", column, id, place));
                let named = names(&report, covered)
                    || names(&report, covered + 1)
                    || names(&report, ROWS + 1);
                assert!(
                    !report.ok && named,
                    "{column} of signature {id}: {:?}",
                    report.problems
                );
            }
        }
        let report = original.report(|db| change_value(db, "heads", column, 5, PLACES[1]));
        assert!(!report.ok, "{column}");
    }
}

#[test]
fn a_deleted_row_is_named_wherever_it_was() {
    let original = Original::new();
    for id in 1..ROWS {
        let delete = |db: &Connection| {
            db.execute("DELETE FROM rows WHERE row = ?1", [id]).unwrap();
        };
        let report = original.quick_report(delete);
        assert!(names(&report, id), "row {id}: {:?}", report.problems);
    }
    assert!(
        !original
            .report(|db| db.execute_batch("DELETE FROM rows WHERE row = 3").unwrap())
            .ok
    );
}

#[test]
fn a_deleted_row_whose_successors_were_moved_down_is_found() {
    let original = Original::new();
    let report = original.report(|db| {
        db.execute("DELETE FROM rows WHERE row = 5", []).unwrap();
        for row in 6..=ROWS {
            db.execute("UPDATE rows SET row = row - 1 WHERE row = ?1", [row])
                .unwrap();
        }
    });
    assert!(names(&report, 5), "{:?}", report.problems);
}

#[test]
fn swapped_rows_are_both_named() {
    let original = Original::new();
    for (a, b) in [(2, 3), (3, 7), (14, 15)] {
        let swap = |db: &Connection| {
            db.execute("UPDATE rows SET row = -1 WHERE row = ?1", [a])
                .unwrap();
            db.execute("UPDATE rows SET row = ?1 WHERE row = ?2", [a, b])
                .unwrap();
            db.execute("UPDATE rows SET row = ?1 WHERE row = -1", [b])
                .unwrap();
        };
        let report = original.report(swap);
        assert!(
            names(&report, a) && names(&report, b),
            "{:?}",
            report.problems
        );
    }
}

#[test]
fn a_row_that_was_moved_to_another_session_is_named() {
    let original = Original::new();
    let report = original.report(|db| {
        db.execute("UPDATE rows SET session = 'b' WHERE row = 5", [])
            .unwrap();
    });
    assert!(names(&report, 5), "{:?}", report.problems);
}

#[test]
fn a_session_that_was_deleted_whole_is_missed() {
    let original = Original::new();
    let report = original.report(|db| {
        db.execute("DELETE FROM rows WHERE session = 'b'", [])
            .unwrap();
        db.execute("DELETE FROM heads WHERE session = 'b'", [])
            .unwrap();
    });
    assert!(
        [3, 8].iter().all(|row| names(&report, *row)),
        "{:?}",
        report.problems
    );
}

#[test]
fn a_tail_that_was_cut_off_is_named_by_the_signature_over_it() {
    let original = Original::new();
    for left in 0..14 {
        let cut = |db: &Connection| {
            db.execute("DELETE FROM rows WHERE row > ?1", [left])
                .unwrap();
        };
        let report = original.quick_report(cut);
        assert!(names(&report, left + 1), "{left}: {:?}", report.problems);
    }
    assert!(names(
        &original.report(|db| db.execute_batch("DELETE FROM rows WHERE row > 6").unwrap()),
        7
    ));
}

#[test]
fn a_signature_that_was_deleted_between_others_is_missed() {
    let original = Original::new();
    let report = original.report(|db| {
        db.execute("DELETE FROM heads WHERE head = 2", []).unwrap();
    });
    assert!(!report.ok);
}

/// Every hash made right again by somebody who has all but the key.
fn rehash(db: &Connection) {
    let rows: Vec<(u64, u64, String, u64, String)> = {
        let mut query = db
            .prepare("SELECT row, time, session, seq, event FROM rows ORDER BY row")
            .unwrap();
        let found = query
            .query_map([], |r| {
                Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?, r.get(4)?))
            })
            .unwrap();
        found.map(Result::unwrap).collect()
    };
    let mut running = GENESIS;
    let mut sessions: std::collections::HashMap<String, (u64, u64, Digest)> =
        std::collections::HashMap::new();
    for (row, time, session, seq, event) in rows {
        let prev = sessions.get(&session).map_or(GENESIS, |newest| newest.2);
        let (name, json) = (session.as_bytes(), event.as_bytes());
        let hash = Link {
            row,
            time: Millis(time),
            session: name,
            seq,
            prev,
            event: json,
        }
        .hash();
        running = chain::running(row, running, hash);
        db.execute(
            "UPDATE rows SET prev = ?1, hash = ?2, running = ?3 WHERE row = ?4",
            params![prev.0, hash.0, running.0, row],
        )
        .unwrap();
        db.execute(
            "UPDATE heads SET running = ?1 WHERE rows = ?2",
            params![running.0, row],
        )
        .unwrap();
        sessions.insert(session.clone(), (row, seq, hash));
        db.execute(
            "UPDATE heads SET hash = ?1 WHERE row = ?2",
            params![hash.0, row],
        )
        .unwrap();
    }
}

#[test]
fn hashes_made_right_again_do_not_help_without_the_key() {
    let original = Original::new();
    let report = original.report(|db| {
        db.execute(
            "UPDATE rows SET event = replace(event, 'b says', 'b lies') WHERE row = 4",
            [],
        )
        .unwrap();
        rehash(db);
    });
    assert!(names(&report, 4), "{:?}", report.problems);
    assert!(
        report
            .problems
            .iter()
            .all(|problem| problem.what.contains("signature")),
        "{:?}",
        report.problems
    );
}

#[test]
fn a_record_signed_with_another_key_is_not_right() {
    let (original, other) = (Original::new(), Original::new());
    let report = verify(&original.db, &other.key);
    assert!(
        [4, 6, 9, 11, 14].iter().all(|row| names(&report, *row)),
        "{:?}",
        report.problems
    );
    assert!(!python_verify(&original.db, &other.public()).1);
    // A key that is no point of the curve at all.
    assert!(!verify(&original.db, &PublicKey([2; 32])).ok);
}

#[test]
fn signatures_of_small_order_points_are_not_right() {
    let original = Original::new();
    // With the neutral element as key and as R, and S = 0, the bare equation holds for any statement.
    let neutral: Vec<u8> = std::iter::once(1).chain([0; 31]).collect();
    let copy = original.tampered(|db| {
        let signature: Vec<u8> = neutral.iter().copied().chain([0; 32]).collect();
        db.execute("UPDATE heads SET signature = ?1", [signature])
            .unwrap();
    });
    let key = PublicKey(neutral.try_into().unwrap());
    assert!(!verify(&copy, &key).ok);
    let public = original.dir.path().join("neutral.pub");
    fs::write(&public, key.to_string()).unwrap();
    assert!(!python_verify(&copy, &public).1);
}

#[test]
fn a_record_of_many_rows_without_signatures_is_not_right() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    for _ in 0..30 {
        let rows = (0..10)
            .map(|_| common::row("system", common::up("web")))
            .collect();
        common::append(&mut store, rows, None);
    }
    let original = Original {
        db: dir.path().join("ledger.db"),
        key: store.public_key(),
        dir,
    };
    drop(store);
    assert_eq!(original.report(|_| {}).problems, []);
    let report = original.report(|db| db.execute_batch("DELETE FROM heads").unwrap());
    assert!(names(&report, 1), "{:?}", report.problems);
}

#[test]
fn dropped_triggers_and_added_tables_are_found() {
    let original = Original::new();
    for change in [
        "DROP INDEX rows_by_session",
        "CREATE TABLE more (x)",
        "CREATE VIEW v AS SELECT 1",
        "CREATE TRIGGER t AFTER INSERT ON rows BEGIN SELECT 1; END",
    ] {
        assert!(
            !original
                .quick_report(|db| db.execute_batch(change).unwrap())
                .ok,
            "{change}"
        );
    }
    let copy = original.tampered(|_| {});
    Connection::open(&copy)
        .unwrap()
        .execute_batch("DROP TRIGGER rows_kept")
        .unwrap();
    assert!(!verify(&copy, &original.key).ok);
}

#[test]
fn a_view_in_the_place_of_the_rows_is_not_read() {
    let original = Original::new();
    let copy = original.tampered(|_| {});
    let endless = "DROP TABLE rows; CREATE VIEW rows AS WITH RECURSIVE n(row) AS \
                   (SELECT 1 UNION ALL SELECT row + 1 FROM n) SELECT * FROM n;";
    Connection::open(&copy)
        .unwrap()
        .execute_batch(endless)
        .unwrap();
    let report = verify(&copy, &original.key);
    assert!(!report.ok);
}

#[test]
fn what_is_not_a_record_is_a_problem_and_not_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("x.db");
    let key = PublicKey([0; 32]);
    assert!(!verify(&file, &key).ok);
    assert!(!file.exists());
    for content in [&b""[..], b"not a database", &[0; 8192]] {
        fs::write(&file, content).unwrap();
        assert!(!verify(&file, &key).ok);
    }
    assert!(!verify(dir.path(), &key).ok);
}

#[test]
fn no_flipped_byte_of_the_file_changes_what_is_read_unseen() {
    let original = Original::new();
    let right = verify(&original.db, &original.key);
    let bytes = fs::read(&original.db).unwrap();
    let copy = original.dir.path().join("flipped.db");
    let mut found = 0;
    // A prime step, so that every kind of place comes up.
    for at in (0..bytes.len()).step_by(61) {
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x41;
        fs::write(&copy, flipped).unwrap();
        let report = verify(&copy, &original.key);
        match report.ok {
            true => assert_eq!(report, right, "byte {at}"),
            false => found += 1,
        }
    }
    // Most of the file is used: tables, indexes and the texts that make them.
    assert!(found > 50, "only {found} found");
}

#[test]
fn the_ledger_does_not_continue_a_record_whose_end_was_changed() {
    for (change, row) in [
        ("UPDATE rows SET time = time + 1 WHERE row = 15", 15),
        ("DELETE FROM rows WHERE row = 14 OR row = 15", 14),
        ("UPDATE heads SET time = time + 1 WHERE head = 5", 14),
        ("UPDATE rows SET running = zeroblob(32) WHERE row = 14", 14),
    ] {
        let original = Original::new();
        let copy = original.tampered(|db| db.execute_batch(change).unwrap());
        fs::rename(copy, &original.db).unwrap();
        match Store::open(original.dir.path()).map(|_| ()) {
            Err(OpenError::Damaged { row: named, .. }) => assert_eq!(named, row, "{change}"),
            other => panic!("{change}: {other:?}"),
        }
    }
}

#[test]
fn the_triggers_refuse_to_alter_or_delete() {
    let original = Original::new();
    let db = Connection::open(&original.db).unwrap();
    for change in [
        "UPDATE rows SET time = 1 WHERE row = 1",
        "DELETE FROM rows WHERE row = 15",
        "UPDATE heads SET time = 1",
        "DELETE FROM heads",
        "INSERT OR REPLACE INTO rows SELECT 3, time, session, seq, event, prev, hash, running FROM rows WHERE row = 2",
    ] {
        assert!(db.execute(change, []).is_err(), "{change}");
    }
    drop(db);
    assert!(verify(&original.db, &original.key).ok);
}

#[test]
fn a_key_or_a_record_that_is_gone_is_not_replaced_by_a_new_one() {
    let original = Original::new();
    let dir: &Path = original.dir.path();
    fs::rename(dir.join("ledger.key"), dir.join("kept.key")).unwrap();
    assert!(matches!(Store::open(dir), Err(OpenError::KeyGone(_))));
    assert!(!dir.join("ledger.key").exists());
    fs::rename(dir.join("kept.key"), dir.join("ledger.key")).unwrap();
    fs::remove_file(&original.db).unwrap();
    assert!(matches!(Store::open(dir), Err(OpenError::RecordGone(_))));
    assert!(matches!(Store::open(dir), Err(OpenError::RecordGone(_))));
}
