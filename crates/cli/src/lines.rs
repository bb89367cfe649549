//! Commands that answer each line of standard input with one line.

use std::io::{self, BufRead, BufReader, Read as _, Write};

use crate::fault::Fault;

/// The longest line read, in bytes.
const MAX_LINE: u64 = 1024 * 1024;

/// A line of input.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line<'a> {
    /// Without its line feed.
    Text(&'a str),
    /// Too long, or not UTF-8: why nobody can say what is in it.
    Unreadable(String),
}

/// One line out for each line in. What is out is passed on whenever no more is in.
pub(crate) fn each(
    input: BufReader<impl io::Read>,
    out: impl Write,
    answer: impl Fn(Line<'_>) -> String,
) -> Result<(), Fault> {
    each_up_to(MAX_LINE, input, out, answer)
}

/// The same for lines of up to so many bytes.
pub(crate) fn each_up_to(
    longest: u64,
    mut input: BufReader<impl io::Read>,
    mut out: impl Write,
    answer: impl Fn(Line<'_>) -> String,
) -> Result<(), Fault> {
    let mut line = Vec::new();
    loop {
        if input.buffer().is_empty() {
            out.flush().map_err(not_written)?;
        }
        line.clear();
        let mut bounded = input.by_ref().take(longest + 1);
        let got = bounded.read_until(b'\n', &mut line);
        if got.map_err(Fault::io("read standard input"))? == 0 {
            return out.flush().map_err(not_written);
        }
        let whole = line.pop_if(|last| *last == b'\n').is_some() || line.len() as u64 <= longest;
        let said = match (whole, str::from_utf8(&line)) {
            (true, Ok(text)) => answer(Line::Text(text)),
            (true, Err(_)) => answer(Line::Unreadable("the line is not UTF-8".to_owned())),
            (false, _) => {
                input
                    .skip_until(b'\n')
                    .map_err(Fault::io("read standard input"))?;
                answer(Line::Unreadable(format!(
                    "the line has more than {longest} bytes"
                )))
            }
        };
        writeln!(out, "{said}").map_err(not_written)?;
    }
}

fn not_written(error: io::Error) -> Fault {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Fault::OutputClosed,
        _ => Fault::io("write to standard output")(error),
    }
}
