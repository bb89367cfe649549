//! Links and images: the ways by which a text carries data out when somebody only looks at it, or
//! follows them.
//!
//! A reply is read by clients that we do not know: some render Markdown, some HTML, some make a
//! link of everything that looks like one. So no grammar is followed to the letter; whatever any of them
//! could take for a link is taken for one here.

mod html;
mod target;
mod walk;

use crate::finding::{Finding, Kind};

/// What leads to a host for which `allowed` does not hold: whatever a client loads by itself
/// ([`crate::Kind::IMAGE`]), and links that have data in them ([`crate::Kind::LINK`]). `allowed` gets
/// a host in lower case without a trailing dot. Sorted, none over another.
#[must_use]
pub fn find(text: &str, allowed: &dyn Fn(&str) -> bool) -> Vec<Finding> {
    with(Vec::new(), walk::pass(text, allowed).findings)
}

/// The text with every link and image to a host that is not allowed made inert, in every
/// Markdown and HTML form. Doing it twice changes nothing more.
#[must_use]
pub fn defang(text: &str, allowed: &dyn Fn(&str) -> bool) -> String {
    /// Taking a construct away can make another one of what stood around it.
    const ROUNDS: usize = 6;
    let mut inert = text.to_owned();
    for _ in 0..ROUNDS {
        let next = walk::pass(&inert, allowed).inert;
        if next == inert {
            return inert;
        }
        inert = next;
    }
    // Still something new: nothing of it is to be a link or a tag.
    let flat = inert
        .replace('[', "(")
        .replace(']', ")")
        .replace('<', "(")
        .replace('>', ")");
    walk::pass(&flat, allowed).inert
}

/// Findings of both, sorted; where they overlap there is one over both places, of the secret's kind.
#[must_use]
pub fn with(secrets: Vec<Finding>, links: Vec<Finding>) -> Vec<Finding> {
    let mut all: Vec<Finding> = secrets.into_iter().chain(links).collect();
    all.sort_by_key(|one| (one.start, one.end));
    let mut merged: Vec<Finding> = Vec::new();
    for one in all {
        match merged.last_mut() {
            Some(last) if one.start < last.end => {
                last.end = last.end.max(one.end);
                if rank(one.kind) > rank(last.kind) {
                    last.kind = one.kind;
                    last.name = one.name;
                }
            }
            _ => merged.push(one),
        }
    }
    merged
}

fn rank(kind: Kind) -> u8 {
    match kind {
        Kind::LINK => 0,
        Kind::IMAGE => 1,
        Kind::HONEYTOKEN => 3,
        _ => 2,
    }
}
