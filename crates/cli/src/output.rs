//! Standard output: facts for people or as JSON. A reader who has enough is no failure.

use std::io::{self, Write as _};

use serde::Serialize;

use crate::fault::Fault;

/// Prints the text as it is.
pub(crate) fn text(text: &str) -> Result<(), Fault> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => Fault::OutputClosed,
            _ => Fault::io("write to standard output")(error),
        })
}

/// Prints the text and a newline.
pub(crate) fn line(line: impl AsRef<str>) -> Result<(), Fault> {
    text(&format!("{}\n", line.as_ref()))
}

/// Prints one line of JSON.
pub(crate) fn json(value: &impl Serialize) -> Result<(), Fault> {
    let json = serde_json::to_string(value)
        .map_err(|error| Fault::io("write JSON")(io::Error::other(error)))?;
    line(json)
}

/// Says that something is done: in words, or as one line of JSON.
pub(crate) fn done(json: bool, words: &str, facts: &serde_json::Value) -> Result<(), Fault> {
    match json {
        true => self::json(facts),
        false => line(words),
    }
}

/// Prints rows below a head, each column as wide as its widest cell.
pub(crate) fn table<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> Result<(), Fault> {
    text(&laid_out(head, rows))
}

fn laid_out<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
    let mut widths = head.map(|cell| cell.chars().count());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in std::iter::once(head.map(str::to_owned)).chain(rows.iter().cloned()) {
        let mut line = String::new();
        for (width, cell) in widths.iter().zip(&row) {
            line.push_str(cell);
            let gap = width - cell.chars().count() + 2;
            line.extend(std::iter::repeat_n(' ', gap));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [
            ["é".to_owned(), "1".to_owned()],
            ["long".to_owned(), String::new()],
        ];
        assert_eq!(laid_out(["a", "b"], &rows), "a     b\né     1\nlong\n");
    }
}
