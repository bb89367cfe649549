//! Words for the log, which is standard error.

use std::fmt;
use std::io;

/// Says one line, of the form of `format!`, on standard error. For whatever keeps running: `eprintln!`
/// ends a program whose log lies on a full disk, or whose reader is gone.
#[macro_export]
macro_rules! log {
    ($($words:tt)*) => {
        $crate::log::line(format_args!($($words)*))
    };
}

/// Says this line. Without a place for it, it is lost and nothing else: there is nobody to tell.
pub fn line(words: fmt::Arguments<'_>) {
    say(&mut io::stderr().lock(), words);
}

fn say(to: &mut impl io::Write, words: fmt::Arguments<'_>) {
    // Whole, so that lines of several programs do not mix.
    let _ = to.write_all(format!("{words}\n").as_bytes());
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_line_is_said_whole_and_lost_where_there_is_no_room() {
        let mut said = Vec::new();
        say(&mut said, format_args!("{} of {}", 1, 2));
        assert_eq!(said, b"1 of 2\n");
        // A write to it fails as on a full disk (full(4)).
        let mut full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        assert!(full.write_all(b"x").is_err());
        say(&mut full, format_args!("lost"));
    }
}
