//! A text backwards, or with its letters moved by 13.
//!
//! Only of its long words, since no key is shorter, and of all of it where it has dashes like those around
//! a private key. The vault's own values are looked for both ways by their marks, whatever they are.

use std::ops::Range;

use crate::structured::position;
use crate::view::{Budget, Builder, View};

/// Shorter words are no keys.
const LONG: usize = 14;

/// Backwards, byte by byte.
pub(super) fn reversed(view: &View<'_>, budget: &mut Budget) -> Option<View<'static>> {
    let mut out = Builder::new(view);
    for word in words(&view.bytes).into_iter().rev() {
        for at in word.rev() {
            out.push(view.bytes[at], at..at + 1);
        }
        out.gap();
    }
    out.finish(budget)
}

/// ROT13.
pub(super) fn rotated(view: &View<'_>, budget: &mut Budget) -> Option<View<'static>> {
    let mut out = Builder::new(view);
    for word in words(&view.bytes) {
        for at in word {
            out.push(rotate(view.bytes[at]), at..at + 1);
        }
        out.gap();
    }
    out.finish(budget)
}

fn words(bytes: &[u8]) -> Vec<Range<usize>> {
    if position(bytes, "-----").is_some() {
        return Vec::from([0..bytes.len()]);
    }
    let mut words = Vec::new();
    let mut start = 0;
    for word in bytes.split(|byte| *byte <= b' ') {
        if word.len() >= LONG {
            words.push(start..start + word.len());
        }
        start += word.len() + 1;
    }
    words
}

/// A letter 13 places on.
pub(crate) fn rotate(byte: u8) -> u8 {
    match byte {
        b'a'..=b'z' => (byte - b'a' + 13) % 26 + b'a',
        b'A'..=b'Z' => (byte - b'A' + 13) % 26 + b'A',
        _ => byte,
    }
}
