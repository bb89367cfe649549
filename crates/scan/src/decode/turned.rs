//! All of a text backwards, or with its letters moved by 13.

use crate::view::{Budget, Builder, View};

/// Backwards, byte by byte.
pub(super) fn reversed(view: &View<'_>, budget: &mut Budget) -> Option<View<'static>> {
    let mut out = Builder::new(view);
    for at in (0..view.bytes.len()).rev() {
        out.push(view.bytes[at], at..at + 1);
    }
    out.finish(budget)
}

/// ROT13.
pub(super) fn rotated(view: &View<'_>, budget: &mut Budget) -> Option<View<'static>> {
    let mut out = Builder::new(view);
    for (at, byte) in view.bytes.iter().enumerate() {
        out.push(rotate(*byte), at..at + 1);
    }
    out.finish(budget)
}

fn rotate(byte: u8) -> u8 {
    match byte {
        b'a'..=b'z' => (byte - b'a' + 13) % 26 + b'a',
        b'A'..=b'Z' => (byte - b'A' + 13) % 26 + b'A',
        _ => byte,
    }
}
