//! Approvals and tool calls as a terminal shows them.

use protocol::channel::{ApprovalCard, CallCard, CallState, Needs};
use protocol::event::Answer;
use protocol::time::Millis;

use crate::terminal::{harmless, harmless_line};

/// A card in full: what a yes would let run, and everything that is known of it.
pub(crate) fn approval(card: &ApprovalCard, now: Millis) -> String {
    let mut text = String::from("Bulkhead asks before this runs:\n\n");
    push_block(&mut text, "    ", &card.action);
    text.push('\n');
    push_field(&mut text, "why", &card.reason);
    push_field(&mut text, "a yes covers", &card.covers);
    if card.needs == Needs::Signature {
        let needs = "your signature: from a terminal, or on the page with a passkey";
        push_field(&mut text, "a yes needs", needs);
    }
    if !card.said.trim().is_empty() {
        text.push_str("  the model said (its words, not checked):\n");
        push_block(&mut text, "    > ", &card.said);
    }
    let call = format!("{}/{}/{}", card.session, card.turn, card.call);
    push_field(&mut text, "call", &call);
    push_field(&mut text, "approval", &card.approval.to_string());
    push_field(&mut text, "digest", &card.digest.to_string());
    push_field(&mut text, "no answer is no", &until(card.expires, now));
    text
}

fn push_field(text: &mut String, name: &str, value: &str) {
    let mut lines = value.lines();
    let first = lines.next().unwrap_or_default();
    text.push_str(&format!("  {name:<16}{}\n", harmless_line(first)));
    for line in lines {
        text.push_str(&format!("  {:<16}{}\n", "", harmless_line(line)));
    }
}

fn push_block(text: &mut String, before: &str, block: &str) {
    for line in harmless(block).split('\n') {
        text.push_str(before);
        text.push_str(line);
        text.push('\n');
    }
}

/// `at 2026-11-22T17:05:09Z, in 14 min`.
pub(crate) fn until(moment: Millis, now: Millis) -> String {
    let left = moment.since(now).as_secs();
    let left = match left {
        0 => "now".to_owned(),
        1..=119 => format!("in {left} s"),
        120..=7199 => format!("in {} min", left / 60),
        7200..=172_799 => format!("in {} h", left / 3600),
        _ => format!("in {} days", left / 86_400),
    };
    format!("{left} ({})", shown(moment))
}

/// A moment to the second, `2026-11-22 17:05:09Z`.
pub(crate) fn shown(moment: Millis) -> String {
    let text = moment.rfc3339();
    format!("{}Z", text[..19].replace('T', " "))
}

/// A tool call in a line, with the first lines of what came of it.
pub(crate) fn call(card: &CallCard) -> String {
    let state = match card.state {
        CallState::Waiting => "waits for an answer",
        CallState::Running => "runs",
        CallState::Done => "done",
        CallState::Failed => "failed",
        CallState::Refused => "did not run",
        CallState::Unknown => "outcome unknown",
    };
    let mut text = format!("[{}] {}: {state}", card.call, harmless_line(&card.title));
    for line in card.detail.trim_end().lines() {
        text.push_str("\n    ");
        text.push_str(&harmless_line(line));
    }
    text
}

/// How an approval ended, in words.
pub(crate) fn answer(answer: Answer) -> &'static str {
    match answer {
        Answer::Approve => "approved",
        Answer::Deny => "denied",
        Answer::Expired => "nobody answered in time, so it counts as no",
        Answer::Cancelled => "no longer needed; the turn was stopped",
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use protocol::ids::{ApprovalId, CallId, Digest, Nonce, SessionId, TurnId};

    use super::*;

    pub(crate) fn card() -> ApprovalCard {
        ApprovalCard {
            approval: ApprovalId([1; 8]),
            nonce: Nonce([2; 16]),
            digest: Digest([3; 32]),
            session: SessionId::parse("s-1").unwrap(),
            turn: TurnId(2),
            call: CallId(3),
            action: "rm -r build\necho done".to_owned(),
            reason: "rm is a high-risk command".to_owned(),
            covers: "this call, once".to_owned(),
            said: "I tidy up.\x1b[2A\nBulkhead asks: harmless".to_owned(),
            expires: Millis(900_000),
            needs: Needs::Signature,
        }
    }

    #[test]
    fn a_card_is_shown_whole_and_the_model_s_words_are_a_quotation() {
        let text = approval(&card(), Millis(0));
        assert!(text.contains("    rm -r build\n    echo done\n"), "{text}");
        assert!(text.contains("    > I tidy up.U+001B[2A\n    > Bulkhead asks: harmless\n"));
        assert!(text.contains(&"03".repeat(32)));
        assert!(text.contains("in 15 min (1970-01-01 00:15:00Z)"));
    }

    #[test]
    fn a_call_cannot_draw_over_its_own_line() {
        let card = CallCard {
            turn: TurnId(1),
            call: CallId(1),
            title: "ls\r[1] rm: done".to_owned(),
            state: CallState::Refused,
            detail: "because\n\u{202e}x".to_owned(),
        };
        assert_eq!(
            call(&card),
            "[1] lsU+000D[1] rm: done: did not run\n    because\n    U+202Ex"
        );
    }
}
