//! What a run changed in the workspace: in words for people and the model, and cut to what a
//! row of the record holds.

use protocol::runner::{Change, ChangeKind, Changes, Fate};

use super::texts::{shortened, visible};

/// The most changes that are named in words.
const MOST_NAMED: usize = 8;

/// The longest part of a name that is told, in bytes.
const NAME: usize = 80;

/// The longest reason that is told, in bytes.
const REASON: usize = 300;

/// The most that the list of changes takes of a row of the record, in bytes. Both outputs of a
/// run fit beside it.
const ROW_BYTES: usize = 128 * 1024;

/// What became of the changes of a call; empty if there were none.
pub(super) fn text(changes: &Changes) -> String {
    match &changes.fate {
        Fate::Unchanged => String::new(),
        Fate::Kept { .. } => format!(
            "[changed: {}; `bulkhead undo` takes it back]",
            listed(changes)
        ),
        Fate::Discarded => format!(
            "[thrown away, since the call only reads or was cut off: {}; nothing of it is in the \
             workspace]",
            listed(changes)
        ),
        Fate::Conflict { paths } => {
            let names: Vec<String> = paths.iter().take(MOST_NAMED).map(|it| name(it)).collect();
            format!(
                "[not kept: another session, or somebody else, changed {} meanwhile; nothing of \
                 this call is in the workspace. Look again and repeat it]",
                match names.is_empty() {
                    true => "the same files".to_owned(),
                    false => names.join(", "),
                }
            )
        }
        Fate::ReadOnly { paths } => {
            let names: Vec<String> = paths.iter().take(MOST_NAMED).map(|it| name(it)).collect();
            format!(
                "[not kept: {} is read-only by the owner's rules; nothing of this call is in the workspace]",
                names.join(", ")
            )
        }
        Fate::Failed { reason, fix } => format!(
            "[not kept: {}. Nothing of this call is in the workspace. {}]",
            visible(&shortened(reason, REASON)),
            visible(&shortened(fix, REASON))
        ),
    }
}

fn listed(changes: &Changes) -> String {
    let mut parts: Vec<String> = changes
        .list
        .iter()
        .take(MOST_NAMED)
        .map(|change| format!("{} ({})", name(&change.path), word(change.kind)))
        .collect();
    let more = changes.list.len().saturating_sub(MOST_NAMED) as u64 + changes.more;
    if more > 0 {
        parts.push(format!("and {more} more"));
    }
    parts.join(", ")
}

fn word(kind: ChangeKind) -> &'static str {
    match kind {
        ChangeKind::Created => "created",
        ChangeKind::Changed => "changed",
        ChangeKind::Deleted => "deleted",
    }
}

/// A name in one line; in quotes if it could be taken for several, or for other words.
fn name(path: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '/' | '+');
    let shown = visible(path).replace('\n', "U+000A").replace('"', "U+0022");
    let cut = match shown.len() > NAME {
        true => format!("{}...", &shown[..shown.floor_char_boundary(NAME)]),
        false => shown,
    };
    match !path.is_empty() && path.chars().all(plain) {
        true => cut,
        false => format!("\"{cut}\""),
    }
}

/// The same with as many changes in the list as a row of the record holds.
pub(super) fn for_the_record(changes: Changes) -> Changes {
    let mut left = ROW_BYTES;
    let fits = |change: &Change| {
        // Plain structs of texts and numbers always have a JSON form.
        let bytes = serde_json::to_vec(change).map_or(usize::MAX, |json| json.len());
        left = left.saturating_sub(bytes);
        left > 0
    };
    let all = changes.list.len();
    let list: Vec<Change> = changes.list.into_iter().take_while(fits).collect();
    let more = changes.more + (all - list.len()) as u64;
    Changes {
        fate: changes.fate,
        list,
        more,
    }
}

#[cfg(test)]
mod tests {
    use protocol::runner::EntryId;

    use super::*;

    fn changes(fate: Fate, names: &[&str]) -> Changes {
        let change = |path: &&str| Change {
            path: (*path).to_owned(),
            kind: ChangeKind::Created,
            before: None,
            after: None,
        };
        Changes {
            fate,
            list: names.iter().map(change).collect(),
            more: 0,
        }
    }

    #[test]
    fn what_was_kept_is_named_and_what_is_too_much_is_counted() {
        let kept = || Fate::Kept { entry: EntryId(3) };
        assert_eq!(
            text(&changes(kept(), &["a.txt", "d/b"])),
            "[changed: a.txt (created), d/b (created); `bulkhead undo` takes it back]"
        );
        let many = Changes {
            more: 5,
            ..changes(kept(), &["x"; 10])
        };
        assert!(text(&many).contains("x (created), and 7 more;"));
        assert_eq!(text(&Changes::default()), "");
    }

    #[test]
    fn a_name_cannot_pass_for_other_words_or_steer_a_terminal() {
        let hostile = "a (created), b\n\u{1b}[2J\u{202e}\"] done";
        let text = text(&changes(Fate::Kept { entry: EntryId(1) }, &[hostile]));
        assert!(!text.contains(['\n', '\u{1b}', '\u{202e}']), "{text}");
        assert!(text.starts_with("[changed: \"a (created), b"), "{text}");
        assert_eq!(text.matches('"').count(), 2, "{text}");
    }

    #[test]
    fn what_was_not_kept_says_why_and_what_to_do() {
        let conflict = changes(
            Fate::Conflict {
                paths: vec!["x".to_owned()],
            },
            &["x"],
        );
        let text = text(&conflict);
        assert!(text.contains("changed x meanwhile"), "{text}");
        assert!(text.contains("Look again and repeat"), "{text}");
    }

    #[test]
    fn the_list_in_a_row_is_bounded_however_long_the_names_are() {
        let long = "\u{1}".repeat(4000);
        let all = changes(Fate::Discarded, &[long.as_str(); 1000]);
        let cut = for_the_record(all);
        assert_eq!(cut.list.len() as u64 + cut.more, 1000);
        assert!(serde_json::to_vec(&cut).unwrap().len() < 2 * ROW_BYTES);
        let few = changes(Fate::Discarded, &["a", "b"]);
        assert_eq!(for_the_record(few.clone()), few);
    }
}
