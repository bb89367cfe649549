//! The page `docs/box-layers.md`.

use std::collections::BTreeMap;

use super::{Left, Table, Who, Without};

const HEAD: &str = "\
# What each layer of the box holds alone

A box is held by layers, and most attacks meet two or more of them. This page says what happens when one is left
out, which only a test build can do (feature `ablation` of `bulkhead-sandbox`; no program that is shipped has it):

- *refused*: a box without this layer does not start, because building it fails or because the self-check, which
  reads back from the kernel what was applied, finds that it is missing.
- *held*: it starts, and the other layers stop every attack of `bulkhead sandbox probe`.
- names: it starts, and these attacks get through: they hang on this layer only.

The third and fourth column are with the self-check left out as well. Many names beside `seccomp` are calls that
the kernel looks at and may still refuse for want of a right; that it looks is what the list of calls is there to prevent.
Without `root` the host's files lie under the box' own root, and Landlock keeps them from being opened. Without
`no-new-privs` it is set all the same, since the list of calls and the Landlock domain take it.

The test `ablation` (`cargo test -p bulkhead-sandbox --features ablation --test ablation`) compares the page with what
it finds, as root and as an ordinary user; with `BULKHEAD_WRITE_DOCS=1` it writes it.

| left out | with the self-check | without, as root | without, as an ordinary user |
|---|---|---|---|
";

/// The page for what was found.
pub(super) fn render(table: &Table) -> String {
    let mut rows: BTreeMap<&str, [String; 3]> = BTreeMap::new();
    for ((layer, who), Left { checked, unchecked }) in table {
        let row = rows.entry(layer).or_default();
        row[0] = match checked {
            Without::Refused => "refused".to_owned(),
            Without::Starts(_) => "starts".to_owned(),
        };
        row[column(*who)] = cell(unchecked);
    }
    let lines = rows.iter().map(|(layer, [checked, root, ordinary])| {
        format!("| {layer} | {checked} | {root} | {ordinary} |\n")
    });
    HEAD.to_owned() + &lines.collect::<String>()
}

fn column(who: Who) -> usize {
    match who {
        Who::Root => 1,
        Who::Ordinary => 2,
    }
}

fn cell(without: &Without) -> String {
    match without {
        Without::Refused => "refused".to_owned(),
        Without::Starts(through) if through.is_empty() => "held".to_owned(),
        Without::Starts(through) => {
            let names: Vec<_> = through.iter().map(|name| format!("`{name}`")).collect();
            names.join(", ")
        }
    }
}

/// What a page says of each layer: with the self-check, and without it as this user.
pub(super) fn cells(page: &str, who: Who) -> BTreeMap<String, (String, String)> {
    let rows = page.lines().filter_map(|line| line.strip_prefix("| "));
    let split = |row: &str| -> Option<(String, (String, String))> {
        let cells: Vec<_> = row.trim_end_matches(" |").split(" | ").collect();
        let (layer, checked, unchecked) =
            (cells.first()?, cells.get(1)?, cells.get(1 + column(who))?);
        Some((
            (*layer).to_owned(),
            ((*checked).to_owned(), (*unchecked).to_owned()),
        ))
    };
    rows.filter_map(split)
        .filter(|(layer, _)| layer != "left out")
        .collect()
}
