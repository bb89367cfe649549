//! Approvals as messages with buttons. Pure.
//!
//! What is asked stands first and whole; what the model said stands last, as a quotation. A
//! button brings the approval's id and the beginning of the digest that was shown; whether
//! the person who pressed may answer is for the gateway to decide.

use protocol::channel::{ApprovalAnswer, ApprovalCard, Needs};
use protocol::event::Answer;
use protocol::ids::{ApprovalId, Digest};

use super::api::{Button, Keyboard};
use super::split::{MAX_UNITS, split};
use super::styled::{Code, Part, Style, Styled};

/// An action that needs more messages than this is not approved in a chat.
const MAX_PARTS: usize = 10;

/// Room for the outcome, which is added when the approval is closed, in UTF-16 code units.
const OUTCOME_UNITS: usize = 96;

/// What is shown of the model's own words, in characters.
const MAX_SAID: usize = 600;

/// How much of the digest a button carries, in hexadecimal digits.
const DIGEST_DIGITS: usize = 16;

/// An approval as messages; the buttons belong under the last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Card {
    /// The messages; at least one.
    pub(super) parts: Vec<Part>,
    /// The buttons.
    pub(super) keyboard: Keyboard,
    /// Whether yes can be said here.
    pub(super) scope: Scope,
}

/// What can be answered in the chat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// Yes and no.
    Both,
    /// Only no: the action is too long to be shown here, and what is not shown is not approved.
    TooLong,
    /// Only no: a yes takes a signature, and none is made in a chat.
    SignedElsewhere,
}

/// What a button brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Choice {
    /// Which approval.
    pub(super) approval: ApprovalId,
    /// What was chosen.
    pub(super) answer: ApprovalAnswer,
    digest: String,
}

impl Choice {
    /// Reads what a button brought; anybody in the chat may send anything.
    pub(super) fn parse(data: &str) -> Option<Self> {
        let mut fields = data.split(':');
        let (word, approval, digest) = (fields.next()?, fields.next()?, fields.next()?);
        let answer = match word {
            "approve" => ApprovalAnswer::Approve,
            "deny" => ApprovalAnswer::Deny,
            _ => return None,
        };
        let approval = ApprovalId::parse(approval).ok()?;
        (fields.next().is_none() && digest.len() == DIGEST_DIGITS).then(|| Self {
            approval,
            answer,
            digest: digest.to_owned(),
        })
    }

    /// Whether the button stood under the call with this digest.
    pub(super) fn is_about(&self, digest: &Digest) -> bool {
        digest.to_string().starts_with(&self.digest)
    }
}

/// The reason in a message that says no, `/deny REASON`; none if the message says something else.
/// It is a word of its own, so that nothing that is written in passing, a yes least of all, is
/// taken for an answer.
pub(super) fn denial(text: &str) -> Option<&str> {
    let rest = text.trim().strip_prefix("/deny")?;
    (rest.is_empty() || rest.starts_with(char::is_whitespace)).then(|| rest.trim())
}

/// The messages of an approval.
pub(super) fn card(card: &ApprovalCard) -> Card {
    let whole = split(&question(card, &card.action), MAX_UNITS - OUTCOME_UNITS);
    let (parts, scope) = if whole.len() <= MAX_PARTS {
        let scope = match card.needs {
            Needs::Answer => Scope::Both,
            Needs::Signature => Scope::SignedElsewhere,
        };
        (whole, scope)
    } else {
        let instead = format!(
            "(too long to be shown here: {} characters, SHA-256 of the call {})\n\nSee it whole with: bulkhead approvals show {}",
            card.action.chars().count(),
            card.digest,
            card.approval
        );
        (
            split(&question(card, &instead), MAX_UNITS - OUTCOME_UNITS),
            Scope::TooLong,
        )
    };
    Card {
        parts,
        keyboard: keyboard(card, scope),
        scope,
    }
}

/// The last message of an approval once it is closed.
pub(super) fn closed(card: &Card, answer: Answer) -> Part {
    let mut part = card
        .parts
        .last()
        .cloned()
        .unwrap_or_else(|| Part::plain(""));
    part.text.push_str("\n\n— ");
    part.text.push_str(outcome(answer));
    part
}

/// How an approval ended, in a few words.
pub(super) fn outcome(answer: Answer) -> &'static str {
    match answer {
        Answer::Approve => "Approved.",
        Answer::Deny => "Denied.",
        Answer::Expired => "Nobody answered in time; it counts as no.",
        Answer::Cancelled => "No longer needed: the turn was stopped.",
    }
}

fn question(card: &ApprovalCard, action: &str) -> Styled {
    let plain = Style::default();
    let bold = Style {
        bold: true,
        ..Style::default()
    };
    let block = Style {
        code: Code::Block {
            id: 1,
            language: None,
        },
        ..Style::default()
    };
    let mut text = Styled::default();
    text.push("May this run?", &bold);
    text.push("\n\n", &plain);
    text.push(action, &block);
    text.push(
        &format!(
            "\n\nWhy it is asked: {}\nA yes covers: {}",
            card.reason, card.covers
        ),
        &plain,
    );
    if card.needs == Needs::Signature {
        text.push(
            &format!(
                "\nA yes needs your signature and cannot be said here: approve it on the page with a passkey, or in a terminal with: bulkhead approvals approve {}",
                card.approval
            ),
            &bold,
        );
    }
    if !card.said.trim().is_empty() {
        let quote = Style {
            quote: Some(1),
            ..Style::default()
        };
        text.push("\n\nWhat the model says about it (not checked):\n", &plain);
        text.push(&visible(&card.said), &quote);
    }
    let until = card.expires.rfc3339();
    // `2026-11-22T17:05:09.123Z`: date, then hours and minutes.
    let until = format!(
        "{} {}",
        until.get(..10).unwrap_or(&until),
        until.get(11..16).unwrap_or_default()
    );
    text.push(
        &format!(
            "\n\nWithout an answer until {until} UTC it counts as no. To tell the model why not: /deny REASON"
        ),
        &plain,
    );
    text.without_links()
}

fn keyboard(card: &ApprovalCard, scope: Scope) -> Keyboard {
    let digest = card.digest.to_string();
    let digest = &digest[..DIGEST_DIGITS];
    let button = |text, word| Button {
        text,
        callback_data: format!("{word}:{}:{digest}", card.approval),
    };
    let row = match scope {
        Scope::Both => vec![button("Approve", "approve"), button("Deny", "deny")],
        Scope::TooLong | Scope::SignedElsewhere => vec![button("Deny", "deny")],
    };
    Keyboard {
        inline_keyboard: vec![row],
    }
}

/// The beginning of a text from the model, with what cannot be seen made visible.
fn visible(text: &str) -> String {
    let mut shown = String::new();
    for c in text.chars().take(MAX_SAID) {
        if is_invisible(c) && c != '\n' {
            shown.push_str(&format!("U+{:04X}", u32::from(c)));
        } else {
            shown.push(c);
        }
    }
    if text.chars().nth(MAX_SAID).is_some() {
        shown.push_str(" (cut)");
    }
    shown
}

/// Control characters, and those that change the direction of text, have no width, or are tags.
pub(super) fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{AD}' | '\u{61C}' | '\u{180E}' | '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}'
            | '\u{2060}'..='\u{206F}' | '\u{FEFF}' | '\u{FFF9}'..='\u{FFFB}' | '\u{E0000}'..='\u{E007F}')
}

#[cfg(test)]
mod tests {
    use protocol::ids::{CallId, Nonce, SessionId, TurnId};
    use protocol::time::Millis;

    use super::*;

    fn asked(action: &str, said: &str) -> ApprovalCard {
        ApprovalCard {
            approval: ApprovalId([1; 8]),
            nonce: Nonce([2; 16]),
            digest: Digest([3; 32]),
            session: SessionId::parse("s").unwrap(),
            turn: TurnId(1),
            call: CallId(1),
            action: action.to_owned(),
            reason: "rm is asked about every time".to_owned(),
            covers: "this call, once".to_owned(),
            said: said.to_owned(),
            expires: Millis(1_795_367_109_123),
            needs: Needs::Answer,
        }
    }

    #[test]
    fn the_action_is_code_and_the_model_is_quoted_after_it() {
        let shown = card(&asked(
            "rm -rf <b>x</b> evil.com",
            "Trust me\u{202e} https://evil.com",
        ));
        let [part] = shown.parts.as_slice() else {
            panic!("{shown:?}")
        };
        let text = &part.text;
        assert!(
            text.starts_with("May this run?\n\nrm -rf <b>x</b> evil.com\n\nWhy it is asked: rm is"),
            "{text}"
        );
        assert!(text.contains("(not checked):\nTrust meU+202E https://evil.com\n\nWithout an answer until 2026-11-22 17:05 UTC"), "{text}");
        let kinds: Vec<_> = part.entities.iter().map(|entity| entity.kind).collect();
        assert_eq!(kinds, ["bold", "pre", "blockquote", "code"]);
    }

    #[test]
    fn buttons_fit_and_come_back() {
        let shown = card(&asked("x", ""));
        let [row] = shown.keyboard.inline_keyboard.as_slice() else {
            panic!("{shown:?}")
        };
        assert!(row.iter().all(|button| button.callback_data.len() <= 64));
        let choice = Choice::parse(&row[0].callback_data).unwrap();
        assert_eq!(
            (choice.approval, choice.answer),
            (ApprovalId([1; 8]), ApprovalAnswer::Approve)
        );
        assert!(choice.is_about(&Digest([3; 32])) && !choice.is_about(&Digest([4; 32])));
        let choice = Choice::parse(&row[1].callback_data).unwrap();
        assert_eq!(choice.answer, ApprovalAnswer::Deny);
        for junk in [
            "",
            "approve",
            "approve:01:0",
            "yes:0101010101010101:0303030303030303",
            "approve:0101010101010101:",
            "approve:0101010101010101:0303030303030303:x",
        ] {
            assert_eq!(Choice::parse(junk), None, "{junk}");
        }
    }

    #[test]
    fn only_the_word_for_no_says_no() {
        assert_eq!(denial(" /deny not  this\n"), Some("not  this"));
        assert_eq!(denial("/deny"), Some(""));
        for other in [
            "deny",
            "/denyx",
            "no",
            "yes",
            "/approve",
            "please /deny this",
        ] {
            assert_eq!(denial(other), None, "{other}");
        }
    }

    #[test]
    fn a_long_action_is_whole_over_several_messages_and_a_longer_one_cannot_be_approved_here() {
        let long = format!("first {} last", "x ".repeat(10_000));
        let shown = card(&asked(&long, ""));
        assert!(shown.parts.len() > 1 && shown.scope == Scope::Both);
        let all: String = shown.parts.iter().map(|part| part.text.as_str()).collect();
        assert_eq!(all.matches('x').count(), 10_000);
        let shown = card(&asked(&"x ".repeat(100_000), ""));
        assert_eq!(
            (shown.scope, shown.keyboard.inline_keyboard[0].len()),
            (Scope::TooLong, 1)
        );
    }

    #[test]
    fn what_takes_a_signature_has_no_button_for_yes_and_says_where_to_go() {
        let shown = card(&ApprovalCard {
            needs: Needs::Signature,
            ..asked("rm x", "")
        });
        assert_eq!(shown.scope, Scope::SignedElsewhere);
        let [row] = shown.keyboard.inline_keyboard.as_slice() else {
            panic!("{shown:?}")
        };
        let words: Vec<_> = row.iter().map(|button| button.text).collect();
        assert_eq!(words, ["Deny"]);
        let text = &shown.parts[0].text;
        assert!(
            text.contains("bulkhead approvals approve 0101010101010101"),
            "{text}"
        );
    }

    #[test]
    fn the_outcome_fits_under_every_card() {
        for length in 3500..4300 {
            let shown = card(&asked(&"x".repeat(length), ""));
            for answer in [
                Answer::Approve,
                Answer::Deny,
                Answer::Expired,
                Answer::Cancelled,
            ] {
                assert!(closed(&shown, answer).text.encode_utf16().count() <= MAX_UNITS);
            }
        }
    }
}
