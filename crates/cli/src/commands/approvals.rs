//! `bulkhead approvals`: what waits for an answer.

use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

use clap::{Args, Subcommand};
use config::Home;
use protocol::channel::{ApprovalCard, Needs};
use protocol::ids::ApprovalId;
use protocol::operator::{MAX_REASON, OperatorReply, OperatorRequest};
use protocol::time::Millis;
use serde::Serialize;
use serde_json::json;

use super::audit::habits;
use crate::connect::{self, Operator};
use crate::fault::Fault;
use crate::habits::{Asked, Questions};
use crate::terminal::{self, YesNo, harmless_line};
use crate::{cards, output};

/// How often `watch` looks.
const GLANCE: Duration = Duration::from_millis(500);

/// The fewest digits of a digest that confirm it.
const LEAST_DIGITS: usize = 16;

/// What can be said with `approvals`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    action: Option<Action>,
    /// Print JSON, one approval a line.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// What waits, one a line.
    List,
    /// One of them in full.
    Show {
        /// Its id.
        approval: ApprovalId,
    },
    /// Let it run: shows it in full, then asks.
    Approve {
        /// Its id.
        approval: ApprovalId,
        /// Instead of asking: the digest that was shown, or at least its first 16 digits.
        #[arg(long, value_name = "DIGEST")]
        confirm_digest: Option<String>,
    },
    /// Do not let it run.
    Deny {
        /// Its id.
        approval: ApprovalId,
        /// Why; the model is told so.
        #[arg(long, default_value = "", hide_default_value = true)]
        reason: String,
    },
    /// Show each in full as it comes, until Ctrl-C.
    Watch,
    /// How many questions there are, and how they are answered; read from the record.
    Stats {
        /// Of the last so many days.
        #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=3650))]
        days: u32,
    },
}

pub(crate) fn run(arguments: Arguments, home: &Home) -> Result<(), Fault> {
    let (json, operator) = (arguments.json, || Operator::connect(home));
    match arguments.action.unwrap_or(Action::List) {
        // From the record, which is there also when no program runs.
        Action::Stats { days } => stats(&habits(home, days)?.questions(Millis::now()), json),
        Action::List => list(&pending(&operator()?)?, json),
        Action::Show { approval } => show(home, &find(&operator()?, approval)?, json),
        Action::Approve {
            approval,
            confirm_digest,
        } => {
            let operator = operator()?;
            let card = find(&operator, approval)?;
            confirm(home, &card, confirm_digest)?;
            approve(&operator, home, &card)?;
            let facts = json!({ "done": "approved", "approval": approval });
            output::done(json, "approved", &facts)
        }
        Action::Deny { approval, reason } => {
            let operator = operator()?;
            deny(&operator, &find(&operator, approval)?, reason)?;
            let facts = json!({ "done": "denied", "approval": approval });
            output::done(json, "denied", &facts)
        }
        Action::Watch => watch(home, &operator()?, json),
    }
}

fn stats(questions: &Questions, json: bool) -> Result<(), Fault> {
    if json {
        return output::json(questions);
    }
    output::line(format!(
        "{} questions about {} calls in {} days, {:.1} a day",
        questions.questions, questions.calls, questions.days, questions.a_day
    ))?;
    for (answer, count) in &questions.answers {
        output::line(format!("  {count:>5}  {answer}"))?;
    }
    if let Some(median) = questions.median_ms {
        output::line(format!(
            "half of the answers came within {:.1} s; {} in less than two seconds, which is too soon to have read it",
            median as f64 / 1000.0,
            questions.under_two_seconds
        ))?;
    }
    if !questions.rules.is_empty() {
        output::line("asked by rule:")?;
    }
    for (rule, count) in &questions.rules {
        output::line(format!("  {count:>5}  {}", harmless_line(rule)))?;
    }
    Ok(())
}

fn pending(operator: &Operator) -> Result<Vec<ApprovalCard>, Fault> {
    match operator.ask(&OperatorRequest::Approvals)? {
        OperatorReply::Approvals { cards } => Ok(cards),
        _ => Err(Fault::Unexpected("the gateway")),
    }
}

fn find(operator: &Operator, approval: ApprovalId) -> Result<ApprovalCard, Fault> {
    let cards = pending(operator)?;
    cards
        .into_iter()
        .find(|card| card.approval == approval)
        .ok_or_else(|| {
            Fault::Refused(format!(
                "no approval {approval} waits for an answer; it may be answered or expired. \
                 See `bulkhead approvals`"
            ))
        })
}

fn list(cards: &[ApprovalCard], json: bool) -> Result<(), Fault> {
    if json {
        return cards.iter().try_for_each(output::json);
    }
    if cards.is_empty() {
        return output::line("nothing waits for your answer");
    }
    let now = Millis::now();
    let rows: Vec<_> = cards
        .iter()
        .map(|card| {
            [
                card.approval.to_string(),
                format!("{}/{}/{}", card.session, card.turn, card.call),
                cards::until(card.expires, now),
                beginning(&card.action),
            ]
        })
        .collect();
    output::table(["APPROVAL", "CALL", "EXPIRES", "ACTION"], &rows)
}

/// Enough to tell one from another in a list; `show` and `approve` show all of it.
fn beginning(action: &str) -> String {
    const MOST: usize = 60;
    let line = harmless_line(action).into_owned();
    match line.char_indices().nth(MOST) {
        Some((end, _)) => format!("{} ... (cut; see `approvals show`)", &line[..end]),
        None => line,
    }
}

fn show(home: &Home, card: &ApprovalCard, json: bool) -> Result<(), Fault> {
    let past = past(home, card)?;
    match json {
        true => output::json(&Shown { card, past }),
        false => output::text(&(cards::approval(card, Millis::now()) + &in_words(past))),
    }
}

/// A card, and what came of calls like it.
#[derive(Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    card: &'a ApprovalCard,
    #[serde(skip_serializing_if = "Option::is_none")]
    past: Option<Asked>,
}

/// What a yes that is remembered would have covered in the last 30 days; none if it is not.
fn past(home: &Home, card: &ApprovalCard) -> Result<Option<Asked>, Fault> {
    match card.needs {
        Needs::Answer => Ok(habits(home, 30)?.like(&card.session, card.turn, card.call)),
        Needs::Signature => Ok(None),
    }
}

fn in_words(past: Option<Asked>) -> String {
    past.map(|past| {
        format!(
            "in the past 30 days a yes to this would have covered {} calls, this one counted; {} approved, {} denied\n",
            past.calls, past.approved, past.denied
        )
    })
    .unwrap_or_default()
}

/// Whether the person means what this card says.
fn confirm(home: &Home, card: &ApprovalCard, digest: Option<String>) -> Result<(), Fault> {
    match digest {
        Some(typed) => confirms(&typed, card),
        None => {
            if !terminal::can_ask() {
                return Err(Fault::Usage(format!(
                    "without a terminal, say what you approve: read it with `bulkhead approvals \
                     show {0}`, then `bulkhead approvals approve {0} --confirm-digest DIGEST`",
                    card.approval
                )));
            }
            let past = in_words(past(home, card)?);
            eprintln!("{}{past}", cards::approval(card, Millis::now()));
            if terminal::ask_yes_no("Run this?")? == YesNo::No {
                return Err(Fault::Refused(
                    "not approved; it still waits. `bulkhead approvals deny` ends it".to_owned(),
                ));
            }
            Ok(())
        }
    }
}

/// Signs the digest of this very card: a yes that only the holder of the operator key can say.
fn approve(operator: &Operator, home: &Home, card: &ApprovalCard) -> Result<(), Fault> {
    operator.tell(&OperatorRequest::Approve {
        approval: card.approval,
        digest: card.digest,
        nonce: card.nonce,
        signature: connect::approve(home, card.digest)?,
    })
}

fn deny(operator: &Operator, card: &ApprovalCard, reason: String) -> Result<(), Fault> {
    if reason.len() > MAX_REASON {
        return Err(Fault::Usage(format!(
            "--reason has at most {MAX_REASON} bytes"
        )));
    }
    operator.tell(&OperatorRequest::Deny {
        approval: card.approval,
        digest: card.digest,
        nonce: card.nonce,
        reason,
    })
}

/// Whether these digits are those of the card.
fn confirms(typed: &str, card: &ApprovalCard) -> Result<(), Fault> {
    if typed.len() < LEAST_DIGITS {
        return Err(Fault::Usage(format!(
            "--confirm-digest needs at least the first {LEAST_DIGITS} digits"
        )));
    }
    if !card.digest.to_string().starts_with(typed) {
        return Err(Fault::Refused(
            "that is not the digest of what waits now, so nothing was approved".to_owned(),
        ));
    }
    Ok(())
}

fn watch(home: &Home, operator: &Operator, json: bool) -> Result<(), Fault> {
    let mut seen = BTreeSet::new();
    loop {
        let cards = pending(operator)?;
        for card in cards.iter().filter(|card| !seen.contains(&card.approval)) {
            show(home, card, json)?;
            if !json {
                output::line("")?;
            }
        }
        seen = cards.iter().map(|card| card.approval).collect();
        thread::sleep(GLANCE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cards::tests::card;

    #[test]
    fn only_the_digest_of_the_card_confirms_it() {
        let digest = card().digest.to_string();
        assert!(confirms(&digest, &card()).is_ok());
        assert!(confirms(&digest[..16], &card()).is_ok());
        assert!(matches!(
            confirms(&digest[..15], &card()),
            Err(Fault::Usage(_))
        ));
        assert!(matches!(
            confirms(&"04".repeat(32), &card()),
            Err(Fault::Refused(_))
        ));
        assert!(confirms(&format!("{digest}0"), &card()).is_err());
    }

    #[test]
    fn a_list_says_where_it_cuts() {
        assert_eq!(beginning("ls\nrm x"), "lsU+000Arm x");
        assert!(beginning(&"é".repeat(100)).contains("(cut; see"));
    }
}
