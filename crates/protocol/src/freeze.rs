//! Everything is frozen: since when, by whom, and until the operator key says otherwise.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::{ChannelId, PrincipalId};
use crate::time::Millis;

/// The longest reason for a freeze, in bytes.
pub const MAX_REASON: usize = 500;

/// The shortest word that freezes, in characters: nobody writes it by accident.
pub const MIN_WORD: usize = 8;

/// The longest, in bytes.
pub const MAX_WORD: usize = 200;

/// A freeze. Nothing is begun until it is ended with the operator key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Frozen {
    /// Since when; also tells one freeze from another.
    pub since: Millis,
    /// Who wanted it.
    pub by: By,
    /// Why, in their words; at most [`MAX_REASON`] bytes, empty if nothing was said.
    pub reason: String,
}

/// Who froze everything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "snake_case", deny_unknown_fields)]
pub enum By {
    /// Whoever can open the supervisor's socket, so the owner in a terminal.
    Terminal,
    /// Somebody whom the gateway knows.
    Person {
        /// Who.
        principal: PrincipalId,
        /// Over which channel.
        channel: ChannelId,
        /// How.
        how: How,
    },
    /// There is a mark, and what it says cannot be read.
    Unknown,
}

/// How a person froze everything over a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// By the button of the page.
    Button,
    /// By the word that the owner chose.
    Word,
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Terminal => f.write_str("the owner in a terminal"),
            Self::Person {
                principal,
                channel,
                how,
            } => {
                let how = match how {
                    How::Button => "button",
                    How::Word => "word",
                };
                write!(f, "{principal} on {channel} (by the {how})")
            }
            Self::Unknown => f.write_str("somebody; the mark of it cannot be read"),
        }
    }
}

/// The word that freezes everything when the owner or an approver sends it as a whole message.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PanicWord(String);

/// Why a text cannot be that word.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the word that freezes everything has at least {MIN_WORD} characters and at most {MAX_WORD} bytes, \
     none of them a control character; spaces around it do not count"
)]
pub struct BadWord;

impl PanicWord {
    /// Takes the text without the spaces around it.
    pub fn parse(text: &str) -> Result<Self, BadWord> {
        let word = text.trim();
        let fits = word.chars().count() >= MIN_WORD && word.len() <= MAX_WORD;
        match fits && !word.chars().any(char::is_control) {
            true => Ok(Self(word.to_owned())),
            false => Err(BadWord),
        }
    }

    /// Whether this message is the word and nothing else. How long that takes tells who is allowed
    /// to ask nothing: they know the word already.
    #[must_use]
    pub fn is(&self, message: &str) -> bool {
        message.trim() == self.0
    }
}

impl fmt::Debug for PanicWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PanicWord(..)")
    }
}

impl TryFrom<String> for PanicWord {
    type Error = BadWord;
    fn try_from(text: String) -> Result<Self, BadWord> {
        Self::parse(&text)
    }
}

impl From<PanicWord> for String {
    fn from(word: PanicWord) -> Self {
        word.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_is_a_whole_message_and_long_enough() {
        let word = PanicWord::parse("  red herring ").unwrap();
        for message in ["red herring", "\n red herring\t"] {
            assert!(word.is(message), "{message:?}");
        }
        for message in [
            "",
            "Red herring",
            "red herring!",
            "say red herring",
            "red  herring",
        ] {
            assert!(!word.is(message), "{message:?}");
        }
        for bad in [
            "",
            "seven77",
            "      seven77      ",
            "two\nlines here",
            &"x".repeat(201),
        ] {
            assert_eq!(PanicWord::parse(bad), Err(BadWord), "{bad:?}");
        }
        assert_eq!(
            PanicWord::parse("éééééééé").map(String::from),
            Ok("éééééééé".to_owned())
        );
        assert!(!format!("{word:?}").contains("herring"));
    }
}
