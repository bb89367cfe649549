//! `bulkhead undo`: the workspace as it was before a turn. Shows what that changes before it
//! changes anything.

use std::fmt::Write as _;
use std::str::FromStr;

use clap::Args;
use config::Home;
use protocol::event::UndoOutcome;
use protocol::ids::{RowId, SessionId, TurnId};
use protocol::operator::{OperatorReply, OperatorRequest};
use protocol::runner::{Change, ChangeKind, EntryId};
use protocol::workspace::{Diff, Entry, Origin, Preview, UndoTo};
use serde::Serialize;

use crate::connect::Operator;
use crate::fault::Fault;
use crate::terminal::{self, YesNo, harmless, harmless_line};
use crate::{cards, events, output};

/// How far back is looked.
const MOST_ENTRIES: u32 = 2000;

/// The most changes that are shown one by one.
const MOST_SHOWN: usize = 200;

/// The most names in an error.
const MOST_NAMED: usize = 5;

/// What can be said with `undo`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Before which turn the workspace is to be as it was: SESSION/TURN, a turn's number, or
    /// entry:N of the list. Otherwise the newest that changed something, an undo included.
    turn: Option<Which>,
    /// Only list what can be undone, newest first.
    #[arg(long, conflicts_with_all = ["turn", "diff", "yes", "force"])]
    list: bool,
    /// Also show how texts change, line by line.
    #[arg(long)]
    diff: bool,
    #[command(flatten)]
    wanted: Wanted,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// What is said beforehand instead of being asked about.
#[derive(Debug, Args)]
struct Wanted {
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    /// Undo it even where somebody changed the same files since, by other means.
    #[arg(long)]
    force: bool,
}

/// What was typed for a turn.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Which {
    Turn(SessionId, TurnId),
    Number(TurnId),
    Entry(EntryId),
}

impl FromStr for Which {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |digits: &str| {
            let number = digits.parse::<u64>().ok().filter(|number| *number > 0);
            number.ok_or_else(|| "it is SESSION/TURN, a turn's number, or entry:N".to_owned())
        };
        if let Some(digits) = text.strip_prefix("entry:") {
            return number(digits).map(|entry| Self::Entry(EntryId(entry)));
        }
        match text.rsplit_once('/') {
            None => number(text).map(|turn| Self::Number(TurnId(turn))),
            Some((session, turn)) => {
                let session = SessionId::parse(session).map_err(|error| error.to_string())?;
                number(turn).map(|turn| Self::Turn(session, TurnId(turn)))
            }
        }
    }
}

/// What `--json` prints: what would change, and what came of it if it was undone.
#[derive(Serialize)]
struct Printed<'a> {
    preview: &'a Preview,
    running: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    row: Option<RowId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<&'a UndoOutcome>,
}

pub(crate) fn run(arguments: &Arguments, home: &Home) -> Result<(), Fault> {
    let operator = Operator::connect(home)?;
    if arguments.list {
        return list(&history(&operator)?, arguments.json);
    }
    let to = match &arguments.turn {
        None => UndoTo::Newest,
        Some(which) => resolve(which, || history(&operator))?,
    };
    let diff = match arguments.diff {
        true => Diff::Unified,
        false => Diff::None,
    };
    let request = OperatorRequest::UndoPreview {
        to: to.clone(),
        diff,
    };
    let OperatorReply::UndoPreview { preview, running } = operator.ask(&request)? else {
        return Err(Fault::Unexpected("the gateway"));
    };
    let asks = !arguments.wanted.yes && !arguments.json && terminal::can_ask();
    show(&preview, running, arguments.json, asks)?;
    if arguments.json && !arguments.wanted.yes {
        // Whoever is not asked gets to see what it would be.
        output::json(&Printed {
            preview: &preview,
            running,
            row: None,
            outcome: None,
        })?;
    }
    may_go_on(&preview, &arguments.wanted, asks)?;
    if preview.changes.is_empty() && preview.more == 0 {
        return Ok(());
    }
    undo(&operator, to, &preview, running, arguments.json)
}

fn history(operator: &Operator) -> Result<Vec<Entry>, Fault> {
    let most = MOST_ENTRIES;
    match operator.ask(&OperatorRequest::History { most })? {
        OperatorReply::History { entries } => Ok(entries),
        _ => Err(Fault::Unexpected("the gateway")),
    }
}

/// A bare number means the turn of the one session that has it, or of the newest session.
fn resolve(
    which: &Which,
    entries: impl FnOnce() -> Result<Vec<Entry>, Fault>,
) -> Result<UndoTo, Fault> {
    let number = match which {
        Which::Turn(session, turn) => {
            let (session, turn) = (session.clone(), *turn);
            return Ok(UndoTo::Turn { session, turn });
        }
        Which::Entry(entry) => return Ok(UndoTo::Entry { entry: *entry }),
        Which::Number(turn) => *turn,
    };
    let entries = entries()?;
    let calls = || {
        entries.iter().filter_map(|entry| match &entry.origin {
            Origin::Call { call } => Some(call),
            Origin::Run | Origin::Undo { .. } => None,
        })
    };
    let mut sessions: Vec<&SessionId> = calls()
        .filter(|call| call.turn == number)
        .map(|call| &call.session)
        .collect();
    sessions.dedup();
    let newest = calls().next().map(|call| &call.session);
    let session = match sessions.as_slice() {
        [] => {
            return Err(Fault::Refused(format!(
                "turn {number} changed nothing that can still be undone; see `bulkhead undo --list`"
            )));
        }
        [only] => *only,
        several => several
            .iter()
            .copied()
            .find(|session| Some(*session) == newest)
            .ok_or_else(|| {
                let choices: Vec<String> = several
                    .iter()
                    .map(|session| format!("{session}/{number}"))
                    .collect();
                Fault::Usage(format!("which turn? {}", choices.join(" or ")))
            })?,
    };
    Ok(UndoTo::Turn {
        session: session.clone(),
        turn: number,
    })
}

/// Entries of one turn next to one another are one line.
struct Line<'a> {
    newest: &'a Entry,
    oldest: EntryId,
    changes: u64,
}

fn lines(entries: &[Entry]) -> Vec<Line<'_>> {
    let turn = |entry: &Entry| match &entry.origin {
        Origin::Call { call } => Some((call.session.clone(), call.turn)),
        Origin::Run | Origin::Undo { .. } => None,
    };
    let mut lines: Vec<Line<'_>> = Vec::new();
    for entry in entries {
        match lines.last_mut() {
            Some(line) if turn(line.newest).is_some() && turn(line.newest) == turn(entry) => {
                line.oldest = entry.entry;
                line.changes += entry.changes;
            }
            _ => lines.push(Line {
                newest: entry,
                oldest: entry.entry,
                changes: entry.changes,
            }),
        }
    }
    lines
}

fn list(entries: &[Entry], json: bool) -> Result<(), Fault> {
    if json {
        return entries.iter().try_for_each(output::json);
    }
    if entries.is_empty() {
        return output::line("nothing was changed that can be undone");
    }
    let rows: Vec<_> = lines(entries)
        .iter()
        .map(|line| {
            let numbers = match line.oldest == line.newest.entry {
                true => line.oldest.to_string(),
                false => format!("{} to {}", line.oldest, line.newest.entry),
            };
            [
                name(line.newest),
                cards::shown(line.newest.time),
                line.changes.to_string(),
                numbers,
                match &line.newest.origin {
                    Origin::Call { .. } => String::new(),
                    other => events::origin(other),
                },
            ]
        })
        .collect();
    output::table(["UNDO", "WHEN", "CHANGES", "ENTRIES", ""], &rows)
}

/// What is typed to undo it.
fn name(entry: &Entry) -> String {
    match &entry.origin {
        Origin::Call { call } => format!("{}/{}", call.session, call.turn),
        Origin::Run | Origin::Undo { .. } => format!("entry:{}", entry.entry),
    }
}

fn show(preview: &Preview, running: u32, json: bool, asks: bool) -> Result<(), Fault> {
    if json {
        return Ok(());
    }
    let text = shown(preview, running);
    match asks {
        // Beside the question, wherever standard output goes.
        true => {
            eprint!("{text}");
            Ok(())
        }
        false => output::text(&text),
    }
}

fn shown(preview: &Preview, running: u32) -> String {
    let mut text = String::new();
    // Writing to a text cannot fail.
    let _ = write_preview(&mut text, preview, running);
    text
}

fn write_preview(text: &mut String, preview: &Preview, running: u32) -> std::fmt::Result {
    let undone: Vec<String> = lines(&preview.entries)
        .iter()
        .map(|line| match &line.newest.origin {
            Origin::Call { .. } => format!("turn {}", name(line.newest)),
            other => format!("{} ({})", name(line.newest), events::origin(other)),
        })
        .collect();
    writeln!(text, "takes back {}", undone.join(", "))?;
    for change in preview.changes.iter().take(MOST_SHOWN) {
        writeln!(text, "  {}", change_line(change))?;
    }
    let more = preview.changes.len().saturating_sub(MOST_SHOWN) as u64 + preview.more;
    if more > 0 {
        writeln!(text, "  and {more} more")?;
    }
    if preview.changes.is_empty() && more == 0 {
        writeln!(text, "  nothing: the workspace is as it was then")?;
    }
    if !preview.diff.is_empty() {
        writeln!(text, "\n{}", harmless(preview.diff.trim_end_matches('\n')))?;
    }
    if running > 0 {
        writeln!(
            text,
            "calls that run meanwhile: {running}; what they change in the same files is not kept"
        )?;
    }
    Ok(())
}

fn change_line(change: &Change) -> String {
    let word = match change.kind {
        ChangeKind::Created => "brings back",
        ChangeKind::Changed => "changes",
        ChangeKind::Deleted => "deletes",
    };
    let sizes = match (&change.before, &change.after) {
        (Some(before), Some(after)) if before.size != after.size => {
            format!("  ({} to {} bytes)", before.size, after.size)
        }
        (Some(before), Some(after)) if before.mode != after.mode => {
            format!("  (mode {:o} to {:o})", before.mode, after.mode)
        }
        _ => String::new(),
    };
    format!("{word:<11}  {}{sizes}", harmless_line(&change.path))
}

/// Whether it is clear that it is wanted.
fn may_go_on(preview: &Preview, wanted: &Wanted, asks: bool) -> Result<(), Fault> {
    if preview.changes.is_empty() && preview.more == 0 {
        return Ok(());
    }
    if !preview.changed_since.is_empty() && !wanted.force {
        return Err(Fault::Refused(format!(
            "changed since by other means: {}. Undoing takes that out of the workspace too (it \
             stays in the history). If you want that, say --force",
            named(&preview.changed_since)
        )));
    }
    if wanted.yes {
        return Ok(());
    }
    if !asks {
        return Err(Fault::Usage(
            "nothing was undone; to undo what is shown without being asked, say --yes".to_owned(),
        ));
    }
    match terminal::ask_yes_no("Undo this?")? {
        YesNo::Yes => Ok(()),
        YesNo::No => Err(Fault::Refused("nothing was undone".to_owned())),
    }
}

fn named(paths: &[String]) -> String {
    let names: Vec<_> = paths
        .iter()
        .take(MOST_NAMED)
        .map(|path| harmless_line(path))
        .collect();
    let names = names.join(", ");
    match paths.len().saturating_sub(MOST_NAMED) {
        0 => names,
        more => format!("{names} and {more} more"),
    }
}

fn undo(
    operator: &Operator,
    to: UndoTo,
    preview: &Preview,
    running: u32,
    json: bool,
) -> Result<(), Fault> {
    let digest = preview.digest;
    let (row, outcome) = match operator.ask(&OperatorRequest::Undo { to, digest })? {
        OperatorReply::Undone { asked, outcome } => (asked, outcome),
        OperatorReply::UndoUnderWay { asked } => {
            return Err(Fault::Refused(format!(
                "it takes long and goes on (row {asked}); `bulkhead audit log --session undo` \
                 tells when it is done"
            )));
        }
        _ => return Err(Fault::Unexpected("the gateway")),
    };
    if json {
        output::json(&Printed {
            preview,
            running,
            row: Some(row),
            outcome: Some(&outcome),
        })?;
    }
    match outcome {
        UndoOutcome::Done { .. } if json => Ok(()),
        UndoOutcome::Done { entry, .. } => output::line(format!(
            "undone and recorded in row {row}; `bulkhead undo entry:{entry}` takes that back"
        )),
        UndoOutcome::Refused { reason } => Err(Fault::Refused(format!(
            "nothing was undone (row {row}): {}",
            harmless_line(&reason)
        ))),
        UndoOutcome::Unknown => Err(Fault::Refused(format!(
            "a program died in between (row {row}), so it may be undone or not; \
             `bulkhead undo --list` shows it if it is"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use protocol::ids::{CallId, CallRef, Digest};
    use protocol::time::Millis;

    use super::*;

    fn entry(number: u64, origin: Origin) -> Entry {
        Entry {
            entry: EntryId(number),
            time: Millis(0),
            origin,
            changes: 2,
            bytes: 10,
        }
    }

    fn call(session: &str, turn: u64, call: u32) -> Origin {
        Origin::Call {
            call: CallRef {
                session: SessionId::parse(session).unwrap(),
                turn: TurnId(turn),
                call: CallId(call),
            },
        }
    }

    /// Newest first.
    fn past() -> Vec<Entry> {
        vec![
            entry(6, Origin::Undo { entry: EntryId(5) }),
            entry(5, Origin::Run),
            entry(4, call("b", 2, 1)),
            entry(3, call("a", 2, 2)),
            entry(2, call("a", 2, 1)),
            entry(1, call("a", 1, 1)),
        ]
    }

    fn preview(changed_since: &[&str]) -> Preview {
        Preview {
            digest: Digest([0; 32]),
            entries: past(),
            changes: vec![Change {
                path: "x\u{1b}[2J\ny".to_owned(),
                kind: ChangeKind::Deleted,
                before: None,
                after: None,
            }],
            more: 3,
            changed_since: changed_since.iter().map(ToString::to_string).collect(),
            diff: "-\u{202e}a\n".to_owned(),
        }
    }

    #[test]
    fn a_turn_is_named_in_three_ways_and_nothing_else() {
        let turn = Which::Turn(SessionId::parse("s-1").unwrap(), TurnId(3));
        assert_eq!("s-1/3".parse(), Ok(turn));
        assert_eq!("3".parse(), Ok(Which::Number(TurnId(3))));
        assert_eq!("entry:7".parse(), Ok(Which::Entry(EntryId(7))));
        for wrong in ["", "0", "-1", "s-1/", "/3", "entry:", "entry:x", "S/1", "s"] {
            assert!(wrong.parse::<Which>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_bare_number_is_the_turn_of_its_only_session_or_of_the_newest() {
        let of = |number| resolve(&Which::Number(TurnId(number)), || Ok(past()));
        let turn = |session: &str, turn| UndoTo::Turn {
            session: SessionId::parse(session).unwrap(),
            turn: TurnId(turn),
        };
        assert_eq!(of(1).unwrap(), turn("a", 1));
        assert_eq!(of(2).unwrap(), turn("b", 2));
        assert!(matches!(of(3), Err(Fault::Refused(_))));
        let other = [entry(7, call("c", 9, 1))];
        let all = || Ok(other.iter().cloned().chain(past()).collect());
        let unclear = resolve(&Which::Number(TurnId(2)), all);
        assert!(matches!(unclear, Err(Fault::Usage(text)) if text.contains("b/2 or a/2")));
    }

    #[test]
    fn the_calls_of_a_turn_are_one_line() {
        let entries = past();
        let names: Vec<_> = lines(&entries)
            .iter()
            .map(|line| (name(line.newest), line.oldest.0, line.changes))
            .collect();
        let expected = [
            ("entry:6", 6, 2),
            ("entry:5", 5, 2),
            ("b/2", 4, 2),
            ("a/2", 2, 4),
            ("a/1", 1, 2),
        ];
        assert_eq!(
            names,
            expected.map(|(name, at, n)| (name.to_owned(), at, n))
        );
    }

    #[test]
    fn what_is_shown_cannot_steer_the_terminal() {
        let text = shown(&preview(&[]), 1);
        assert!(!text.contains(['\u{1b}', '\u{202e}']), "{text}");
        assert!(
            text.contains("deletes      xU+001B[2JU+000Ay\n  and 3 more\n"),
            "{text}"
        );
        assert!(
            text.contains("turn a/2") && text.contains("run meanwhile: 1"),
            "{text}"
        );
    }

    #[test]
    fn nothing_is_undone_that_is_not_clearly_wanted() {
        let wanted = |yes, force| Wanted { yes, force };
        let go =
            |since: &[&str], yes, force| may_go_on(&preview(since), &wanted(yes, force), false);
        assert!(matches!(go(&[], false, false), Err(Fault::Usage(_))));
        assert!(go(&[], true, false).is_ok());
        assert!(
            matches!(go(&["x"], true, false), Err(Fault::Refused(text)) if text.contains(": x."))
        );
        assert!(matches!(go(&["x"], false, true), Err(Fault::Usage(_))));
        assert!(go(&["x"], true, true).is_ok());
    }
}
