//! A third reading of commands, which refuses nothing: words without their quotes, and what stands
//! between them (POSIX.1-2024, 2.2 Quoting, 2.3 Token Recognition). It shares no code with `policy`.

use std::iter::Peekable;
use std::str::CharIndices;

/// Longest first: the longest sign that fits is the sign.
const SIGNS: [&str; 21] = [
    "&>>", "<<-", "<<<", ";;&", "&&", "||", ";;", ";&", "|&", "&>", ">>", "<<", ">&", "<&", "<>",
    ">|", ";", "|", "&", "<", ">",
];

/// Signs that mean something to a shell within a word, unless they are quoted.
const EXPANDS: &str = "$`(){}~#!*?[]";

/// A text as a shell divides it.
#[derive(Debug, Default)]
pub(crate) struct Reading {
    /// From the left to the right.
    pub(crate) pieces: Vec<Piece>,
    /// Whether a quote is open at the end, or a backslash waits for what follows.
    pub(crate) is_open: bool,
}

/// A word or a sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// A word.
    Word {
        /// Without its quotes.
        text: String,
        /// The signs in it that a shell would expand.
        expands: String,
        /// Whether anything of it is quoted.
        is_quoted: bool,
    },
    /// A sign; a new line is one, too.
    Sign {
        /// With the number of a descriptor in front.
        sign: String,
        /// Where it begins and ends.
        at: std::ops::Range<usize>,
    },
}

impl Piece {
    fn number(&self) -> Option<&str> {
        match self {
            Self::Word {
                text,
                is_quoted: false,
                ..
            } if text.bytes().all(|b| b.is_ascii_digit()) => Some(text),
            _ => None,
        }
    }

    /// Whether a sign stands between two programs.
    pub(crate) fn is_between(&self) -> bool {
        match self {
            Self::Word { .. } => false,
            Self::Sign { sign, .. } => !sign.contains(['<', '>']),
        }
    }
}

/// Divides a text.
pub(crate) fn read(text: &str) -> Reading {
    let mut reading = Reading::default();
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.peek().copied() {
        let rest = &text[at..];
        if matches!(c, ' ' | '\t') {
            chars.next();
        } else if let Some(sign) = sign(rest) {
            reading.pieces.push(take(&mut chars, at, "", sign));
        } else {
            let piece = word(&mut chars, &mut reading.is_open);
            // `2>` is one sign.
            let next = chars.peek().copied();
            reading.pieces.push(match (piece.number(), next) {
                (Some(number), Some((at, '<' | '>'))) => {
                    let sign = sign(&text[at..]).unwrap_or_default();
                    take(&mut chars, at, number, sign)
                }
                _ => piece,
            });
        }
    }
    reading
}

fn sign(rest: &str) -> Option<&'static str> {
    let mut all = SIGNS.iter().chain(&["\n"]);
    all.find(|sign| rest.starts_with(**sign)).copied()
}

fn take(chars: &mut Peekable<CharIndices<'_>>, at: usize, number: &str, sign: &str) -> Piece {
    while chars
        .next_if(|(place, _)| *place < at + sign.len())
        .is_some()
    {}
    Piece::Sign {
        sign: format!("{number}{sign}"),
        at: at..at + sign.len(),
    }
}

fn word(chars: &mut Peekable<CharIndices<'_>>, is_open: &mut bool) -> Piece {
    let (mut text, mut expands) = (String::new(), String::new());
    let mut is_quoted = false;
    while let Some((_, c)) = chars.next_if(|(_, c)| !" \t\n|&;<>".contains(*c)) {
        is_quoted |= matches!(c, '\'' | '"' | '\\');
        match c {
            '\'' => loop {
                match chars.next() {
                    Some((_, '\'')) => break,
                    Some((_, c)) => text.push(c),
                    None => return open(is_open, text, expands),
                }
            },
            '"' => loop {
                match chars.next() {
                    Some((_, '"')) => break,
                    Some((_, '\\')) => match chars.next() {
                        Some((_, '\n')) => {}
                        Some((_, c @ ('$' | '`' | '"' | '\\'))) => text.push(c),
                        Some((_, c)) => text.extend(['\\', c]),
                        None => return open(is_open, text, expands),
                    },
                    Some((_, c)) => {
                        text.push(c);
                        expands.extend(Some(c).filter(|c| "$`".contains(*c)));
                    }
                    None => return open(is_open, text, expands),
                }
            },
            '\\' => match chars.next() {
                Some((_, '\n')) => {}
                Some((_, c)) => text.push(c),
                None => return open(is_open, text, expands),
            },
            c => {
                // A shell looks for a tilde where a word begins, and in what could be an assignment.
                let within = c == '~' && !text.is_empty() && !text.contains(['=', ':']);
                text.push(c);
                expands.extend(Some(c).filter(|c| EXPANDS.contains(*c) && !within));
            }
        }
    }
    Piece::Word {
        text,
        expands,
        is_quoted,
    }
}

fn open(is_open: &mut bool, text: String, expands: String) -> Piece {
    *is_open = true;
    Piece::Word {
        text,
        expands,
        is_quoted: true,
    }
}
