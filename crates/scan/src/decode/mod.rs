//! What a text can be decoded to. Each decoder takes a view and gives one, with only what it could
//! decode, and the places it came from; they are tried one after the other and within one another.

mod bases;
mod escapes;
mod joined;
mod numbers;
pub(crate) mod plain;
mod spelled;
mod turned;

use crate::view::{Budget, View};

pub(crate) use escapes::html as html_text;
pub(crate) use turned::rotate;

/// By which way a view came about: what need not be tried on it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Way {
    /// Decodings so far.
    pub(crate) depth: usize,
    pub(crate) reversed: Turned,
    pub(crate) rotated: Turned,
}

/// Whether all of a text was turned over, which twice would undo.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Turned {
    #[default]
    No,
    Yes,
}

impl Way {
    /// Whether it reads as it was written, so that words of a language mean something.
    pub(crate) fn is_upright(self) -> bool {
        self.reversed == Turned::No && self.rotated == Turned::No
    }

    fn deeper(self) -> Self {
        Self {
            depth: self.depth + 1,
            ..self
        }
    }
}

/// What a decoded view is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signs {
    /// Everything that was there.
    All,
    /// Letters and digits only; what formats have between them is lost.
    LettersAndDigits,
}

/// Gives each decoding of a view to `look`.
pub(crate) fn each(
    view: &View<'_>,
    way: Way,
    budget: &mut Budget,
    look: &mut dyn FnMut(&View<'_>, Way, Signs, &mut Budget),
) {
    let next = way.deeper();
    type Decoder = fn(&View<'_>, &mut Budget) -> Option<View<'static>>;
    let all: [Decoder; 9] = [
        plain::decode,
        escapes::decode,
        joined::decode,
        bases::base64,
        bases::base32,
        bases::hexadecimal,
        bases::binary,
        numbers::decode,
        spelled::decode,
    ];
    for decode in all {
        if let Some(decoded) = decode(view, budget) {
            look(&decoded, next, Signs::All, budget);
        }
    }
    if let Some(decoded) = spelled::squeeze(view, budget) {
        look(&decoded, next, Signs::LettersAndDigits, budget);
    }
    if way.reversed == Turned::No
        && way.rotated == Turned::No
        && let Some(decoded) = turned::reversed(view, budget)
    {
        let reversed = Way {
            reversed: Turned::Yes,
            ..next
        };
        look(&decoded, reversed, Signs::All, budget);
    }
    if way.rotated == Turned::No
        && let Some(decoded) = turned::rotated(view, budget)
    {
        let rotated = Way {
            rotated: Turned::Yes,
            ..next
        };
        look(&decoded, rotated, Signs::All, budget);
    }
}
