//! What can be read of a body: text as it is, and of all else what stands in it as text.
//!
//! Noise of some megabytes has everything in it by chance if signs between letters are passed over; so nothing is
//! passed over there. Of what is no text only this many readable signs in a row count.

use crate::text::Pieces;

const READABLE: usize = 8;

/// Of text not more than one sign in so many is none.
const MOSTLY: usize = 10;

/// Bytes as they come, as text. A zero sign stands where something else was left out.
#[derive(Default)]
pub(super) struct Readable {
    pieces: Pieces,
    /// Readable signs of what is no text, which may go on.
    run: String,
    run_is: Run,
    /// After one zero byte; texts of 16 bits have one after each letter.
    after: After,
}

/// Whether signs of this run are in what was given out.
#[derive(Default, PartialEq, Eq)]
enum Run {
    #[default]
    New,
    Begun,
}

#[derive(Default, PartialEq, Eq)]
enum After {
    #[default]
    Sign,
    Zero,
}

impl Readable {
    /// What can be read of these bytes.
    pub(super) fn push(&mut self, bytes: &[u8]) -> String {
        let text = self.pieces.push(bytes);
        self.read(&text)
    }

    /// The rest.
    pub(super) fn finish(&mut self) -> String {
        let rest = self.pieces.finish();
        let mut out = self.read(&rest);
        self.end_run(&mut out);
        out
    }

    /// Whether nothing that was given out can go on.
    pub(super) fn is_cut(&self) -> bool {
        self.run_is == Run::New
    }

    fn read(&mut self, text: &str) -> String {
        let odd = text.chars().filter(|sign| is_odd(*sign)).count();
        let mut out = String::with_capacity(text.len());
        if odd * MOSTLY <= text.chars().count() {
            out.push_str(&std::mem::take(&mut self.run));
            out.push_str(text);
            self.run_is = Run::Begun;
            return out;
        }
        for sign in text.chars() {
            match (is_odd(sign), &self.after) {
                (false, _) => {
                    self.run.push(sign);
                    self.after = After::Sign;
                }
                (true, After::Sign) if sign == '\0' => self.after = After::Zero,
                (true, After::Sign | After::Zero) => self.end_run(&mut out),
            }
        }
        if self.run.len() >= READABLE {
            out.push_str(&std::mem::take(&mut self.run));
            self.run_is = Run::Begun;
        }
        out
    }

    fn end_run(&mut self, out: &mut String) {
        if self.run_is == Run::Begun || self.run.len() >= READABLE {
            out.push_str(&self.run);
            out.push('\0');
        }
        self.run.clear();
        (self.run_is, self.after) = (Run::New, After::Sign);
    }
}

fn is_odd(sign: char) -> bool {
    sign == char::REPLACEMENT_CHARACTER
        || (sign.is_control() && !matches!(sign, '\t' | '\n' | '\r'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8], size: usize) -> String {
        let mut readable = Readable::default();
        let mut text: String = bytes.chunks(size).map(|it| readable.push(it)).collect();
        text.push_str(&readable.finish());
        text
    }

    #[test]
    fn text_is_read_as_it_is_however_it_is_cut() {
        let text = "Grüße, \u{1b}[1mand some more\u{1b}[0m words: 日本語.\r\n".repeat(3);
        for size in [64, 1000] {
            assert_eq!(
                read(text.as_bytes(), size).replace('\0', ""),
                text,
                "{size}"
            );
        }
    }

    #[test]
    fn of_what_is_no_text_only_what_stands_in_it_is_read() {
        let noise: Vec<u8> = (0..200_u8).map(|it| it.wrapping_mul(151) | 0x80).collect();
        assert_eq!(read(&noise, 50), "");
        let wide: Vec<u8> = "sixteen bits".bytes().flat_map(|it| [it, 0]).collect();
        let all = [
            &noise[..],
            b"short\x01\xffreadable text\x02",
            &noise,
            &wide,
            &noise,
        ]
        .concat();
        for size in [64, 1000] {
            let text = read(&all, size);
            let words: Vec<_> = text.split('\0').filter(|it| !it.is_empty()).collect();
            assert_eq!(words, ["readable text", "sixteen bits"], "{size}");
        }
    }

    #[test]
    fn it_can_be_told_when_nothing_goes_on() {
        let mut readable = Readable::default();
        assert!(readable.is_cut());
        readable.push(b"\xff\x01\x02readable");
        assert!(!readable.is_cut());
        readable.push(b"\xff\x01\x02");
        assert!(readable.is_cut());
        readable.push(b"some text that goes on");
        assert!(!readable.is_cut());
    }
}
