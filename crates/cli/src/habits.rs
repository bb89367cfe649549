//! What the record says about questions: how many there are, how they are answered, which remembered answers
//! nobody uses, and what other rules would say of the same calls.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use policy::Rules;
use protocol::call::Verdict;
use protocol::event::{Answer, Event, Ground};
use protocol::ids::{CallId, SessionId, TurnId};
use protocol::record::Row;
use protocol::time::Millis;
use serde::Serialize;
use serde_json::{Value, json};

/// An answer that came sooner was hardly read.
const HARDLY_READ: Duration = Duration::from_secs(2);
/// A grant that was not used for so long since it was made is not needed.
const UNUSED: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// So many questions are worth a rule.
const OFTEN: u64 = 5;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A call's place in the record.
type Place = (SessionId, TurnId, CallId);

/// What is known of a call as long as it is not over.
#[derive(Default)]
struct Open {
    name: String,
    args: String,
    key: String,
    rule: String,
}

/// A call that was decided, to be decided again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Decided {
    pub(crate) row: u64,
    pub(crate) name: String,
    pub(crate) args: String,
    pub(crate) verdict: Verdict,
    pub(crate) rule: String,
}

/// A remembered answer.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Held {
    made: Millis,
    expires: Millis,
    used: u64,
}

/// What the record says, from a moment on.
pub(crate) struct Habits {
    since: Millis,
    open: HashMap<Place, Open>,
    after: Vec<u64>,
    answers: BTreeMap<&'static str, u64>,
    rules: BTreeMap<String, u64>,
    /// By principal and key.
    grants: BTreeMap<(String, String), Held>,
    decided: Vec<Decided>,
    /// By key.
    asked: BTreeMap<String, Asked>,
    calls: u64,
}

/// How calls with one key were answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Asked {
    /// Calls, asked about or not.
    pub(crate) calls: u64,
    /// Somebody said yes.
    pub(crate) approved: u64,
    /// Somebody said no.
    pub(crate) denied: u64,
    /// Whether a yes to each of them could be remembered.
    #[serde(skip)]
    once: bool,
}

/// A rule that would have spared questions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Missing {
    /// A line for `allow` under `[policy]`.
    pub(crate) allow: String,
    /// Questions that it would have spared, all of them answered with yes.
    pub(crate) approved: u64,
    /// Calls that it would have covered.
    pub(crate) calls: u64,
}

/// Questions and answers in figures.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Questions {
    /// How many days are looked at.
    pub(crate) days: u64,
    /// Tool calls.
    pub(crate) calls: u64,
    /// Questions to a person.
    pub(crate) questions: u64,
    /// The same, a day.
    pub(crate) a_day: f64,
    /// Milliseconds to an answer, of half of them at most; none without an answer.
    pub(crate) median_ms: Option<u64>,
    /// Answers that came in less than two seconds: hardly read.
    pub(crate) under_two_seconds: u64,
    /// By answer.
    pub(crate) answers: BTreeMap<&'static str, u64>,
    /// By the rule that asked.
    pub(crate) rules: BTreeMap<String, u64>,
}

/// A remembered answer that could go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Unneeded {
    /// Whose.
    pub(crate) principal: String,
    /// For which calls.
    pub(crate) key: String,
    /// When it was given.
    pub(crate) made: Millis,
}

/// A call that other rules decide otherwise.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Otherwise {
    /// The row of the decision.
    pub(crate) row: u64,
    /// The tool.
    pub(crate) tool: String,
    /// Its arguments as the model wrote them.
    pub(crate) args: String,
    /// What was decided.
    pub(crate) was: Verdict,
    /// By which rule.
    pub(crate) was_by: String,
    /// What is said of it today.
    pub(crate) is: Value,
    /// By which rule.
    pub(crate) is_by: Value,
}

impl Otherwise {
    /// Whether less would be asked than was.
    pub(crate) fn is_looser(&self) -> bool {
        serde_json::from_value::<Verdict>(self.is.clone()).is_ok_and(|is| is < self.was)
    }
}

impl Habits {
    /// Of what happened from this moment on.
    pub(crate) fn since(since: Millis) -> Self {
        Self {
            since,
            open: HashMap::new(),
            after: Vec::new(),
            answers: BTreeMap::new(),
            rules: BTreeMap::new(),
            grants: BTreeMap::new(),
            decided: Vec::new(),
            asked: BTreeMap::new(),
            calls: 0,
        }
    }

    /// Takes the next row. Rows come in their order.
    pub(crate) fn add(&mut self, row: &Row) {
        // Grants count from whenever they were made.
        self.grant(row);
        if row.time < self.since {
            return;
        }
        let place = |turn: &TurnId, call: &CallId| (row.session.clone(), *turn, *call);
        match &row.event {
            Event::ToolIntent {
                turn,
                call,
                name,
                args,
                ..
            } => {
                self.calls += 1;
                let open = Open {
                    name: name.clone(),
                    args: args.clone(),
                    ..Open::default()
                };
                self.open.insert(place(turn, call), open);
            }
            Event::Decision {
                turn,
                call,
                verdict,
                rule,
                key,
                ..
            } => {
                if let Some(open) = self.open.get_mut(&place(turn, call)) {
                    open.key.clone_from(key);
                    open.rule.clone_from(rule);
                    let asked = self.asked.entry(key.clone()).or_insert(Asked {
                        once: true,
                        ..Asked::default()
                    });
                    asked.calls += 1;
                    asked.once &= *verdict == Verdict::AskOnce;
                    self.decided.push(Decided {
                        row: row.row.0,
                        name: open.name.clone(),
                        args: open.args.clone(),
                        verdict: *verdict,
                        rule: rule.clone(),
                    });
                }
            }
            Event::ApprovalAnswered {
                turn,
                call,
                answer,
                after_ms,
                ..
            } => {
                let word = match answer {
                    Answer::Approve => "approved",
                    Answer::Deny => "denied",
                    Answer::Expired => "expired",
                    Answer::Cancelled => "cancelled",
                };
                *self.answers.entry(word).or_default() += 1;
                match answer {
                    Answer::Approve | Answer::Deny => self.after.push(*after_ms),
                    Answer::Expired | Answer::Cancelled => {}
                }
                if let Some(open) = self.open.get(&place(turn, call)) {
                    if let Some(asked) = self.asked.get_mut(&open.key) {
                        match answer {
                            Answer::Approve => asked.approved += 1,
                            Answer::Deny => asked.denied += 1,
                            Answer::Expired | Answer::Cancelled => {}
                        }
                    }
                    *self.rules.entry(open.rule.clone()).or_default() += 1;
                }
            }
            Event::Outcome { turn, call, .. } => {
                self.open.remove(&place(turn, call));
            }
            _ => {}
        }
    }

    fn grant(&mut self, row: &Row) {
        match &row.event {
            Event::GrantMade {
                principal,
                key,
                expires,
            } => {
                let held = Held {
                    made: row.time,
                    expires: *expires,
                    used: 0,
                };
                self.grants
                    .insert((principal.to_string(), key.clone()), held);
            }
            Event::GrantRevoked { principal, key } => {
                self.grants.remove(&(principal.to_string(), key.clone()));
            }
            Event::Permit {
                turn,
                call,
                ground: Ground::Grant,
                ..
            } => {
                let place = (row.session.clone(), *turn, *call);
                let Some(open) = self.open.get(&place) else {
                    return;
                };
                // Who asked is not in this row; a use counts for each who was given the same.
                for ((_, key), held) in &mut self.grants {
                    if *key == open.key {
                        held.used += 1;
                    }
                }
            }
            _ => {}
        }
    }

    /// Questions and answers in figures.
    pub(crate) fn questions(&self, now: Millis) -> Questions {
        let days = now
            .since(self.since)
            .as_secs()
            .div_ceil(DAY.as_secs())
            .max(1);
        let questions = self.answers.values().sum();
        let mut after = self.after.clone();
        after.sort_unstable();
        let hardly = u64::try_from(HARDLY_READ.as_millis()).unwrap_or(u64::MAX);
        Questions {
            days,
            calls: self.calls,
            questions,
            a_day: questions as f64 / days as f64,
            median_ms: after.get(after.len() / 2).copied(),
            under_two_seconds: after.iter().filter(|ms| **ms < hardly).count() as u64,
            answers: self.answers.clone(),
            rules: self.rules.clone(),
        }
    }

    /// What came of calls like one that waits now, itself counted.
    pub(crate) fn like(&self, session: &SessionId, turn: TurnId, call: CallId) -> Option<Asked> {
        let open = self.open.get(&(session.clone(), turn, call))?;
        self.asked.get(&open.key).copied()
    }

    /// Rules that would have spared questions which were always answered with yes: for the
    /// program and its first word, as the same call is asked about once only.
    pub(crate) fn missing(&self) -> Vec<Missing> {
        let mut groups: BTreeMap<Vec<String>, Asked> = BTreeMap::new();
        for (key, asked) in &self.asked {
            let words = key.strip_prefix("exec:").map(serde_json::from_str);
            let Some(Ok(words)): Option<Result<Vec<String>, _>> = words else {
                continue;
            };
            let begin = words
                .iter()
                .take(2)
                .enumerate()
                .take_while(|(place, word)| *place == 0 || is_plain(word))
                .map(|(_, word)| word.clone());
            let group = groups.entry(begin.collect()).or_insert(Asked {
                once: true,
                ..Asked::default()
            });
            group.calls += asked.calls;
            group.approved += asked.approved;
            group.denied += asked.denied;
            group.once &= asked.once;
        }
        let spared = |(words, asked): (Vec<String>, Asked)| {
            let fits = asked.once
                && asked.denied == 0
                && asked.approved >= OFTEN
                && words.iter().all(|word| is_plain(word));
            fits.then(|| Missing {
                allow: format!("{} *", words.join(" ")),
                approved: asked.approved,
                calls: asked.calls,
            })
        };
        groups.into_iter().filter_map(spared).collect()
    }

    /// Remembered answers that nobody used in a week or longer.
    pub(crate) fn unneeded(&self, now: Millis) -> Vec<Unneeded> {
        self.grants
            .iter()
            .filter(|(_, held)| {
                held.used == 0 && now < held.expires && now.since(held.made) > UNUSED
            })
            .map(|((principal, key), held)| Unneeded {
                principal: principal.clone(),
                key: key.clone(),
                made: held.made,
            })
            .collect()
    }

    /// How many calls were decided, and which of them the rules of today decide otherwise. `workspace` is where
    /// the workspace is on the host.
    pub(crate) fn otherwise(&self, rules: &Rules, workspace: &str) -> (usize, Vec<Otherwise>) {
        let changed = self.decided.iter().filter_map(|one| {
            let args: Value = serde_json::from_str(&one.args).unwrap_or(Value::Null);
            let line = json!({ "tool": one.name, "args": args, "workspace": workspace });
            let said: Value =
                serde_json::from_str(&policy::explain(rules, &line.to_string(), Millis::now()))
                    .ok()?;
            let was = serde_json::to_value(one.verdict).ok()?;
            (said["decision"] != was).then(|| Otherwise {
                row: one.row,
                tool: one.name.clone(),
                args: one.args.clone(),
                was: one.verdict,
                was_by: one.rule.clone(),
                is: said["decision"].clone(),
                is_by: said["rule"].clone(),
            })
        });
        (self.decided.len(), changed.collect())
    }
}

/// Whether a word can stand in a rule as it is, and names something that is done.
fn is_plain(word: &str) -> bool {
    let usual = |c: char| c.is_ascii_alphanumeric() || "_-.+/".contains(c);
    !word.is_empty() && !word.starts_with('-') && word.chars().all(usual)
}

#[cfg(test)]
mod tests {
    use protocol::event::CallOutcome;
    use protocol::ids::{Digest, PrincipalId, RowId};

    use super::*;

    const NOW: Millis = Millis(100 * 24 * 60 * 60 * 1000);

    struct Record(Vec<Row>);

    impl Record {
        fn add(&mut self, time: Millis, event: Event) {
            let row = Row {
                row: RowId(self.0.len() as u64 + 1),
                time,
                session: SessionId::parse("s").unwrap(),
                event,
                hash: Digest::of(""),
            };
            self.0.push(row);
        }

        /// A call of this number, up to its permit.
        fn call(&mut self, time: Millis, number: u32, command: &str, said: (Verdict, &str)) {
            let (turn, call) = (TurnId(1), CallId(number));
            let args = json!({ "command": command }).to_string();
            self.add(
                time,
                Event::ToolIntent {
                    turn,
                    call,
                    name: "exec".to_owned(),
                    args,
                    said: String::new(),
                },
            );
            self.add(
                time,
                Event::Decision {
                    turn,
                    call,
                    verdict: said.0,
                    rule: said.1.to_owned(),
                    reason: String::new(),
                    key: format!("exec:{command}"),
                },
            );
        }

        fn answered(&mut self, time: Millis, number: u32, answer: Answer, after_ms: u64) {
            let (turn, call) = (TurnId(1), CallId(number));
            self.add(
                time,
                Event::ApprovalAnswered {
                    turn,
                    call,
                    approval: protocol::ids::ApprovalId([0; 8]),
                    answer,
                    by: None,
                    channel: None,
                    after_ms,
                    signed: None,
                },
            );
            let outcome = CallOutcome::Unknown;
            self.add(
                time,
                Event::Outcome {
                    turn,
                    call,
                    outcome,
                },
            );
        }

        fn habits(&self, days: u64) -> Habits {
            let mut habits = Habits::since(ago(days));
            self.0.iter().for_each(|row| habits.add(row));
            habits
        }
    }

    fn ago(days: u64) -> Millis {
        Millis(NOW.0 - days * 24 * 60 * 60 * 1000)
    }

    #[test]
    fn questions_are_counted_with_their_answers_and_how_soon_they_came() {
        let mut record = Record(Vec::new());
        record.call(ago(40), 1, "make", (Verdict::AskOnce, "ordinary"));
        record.answered(ago(40), 1, Answer::Approve, 10);
        record.call(ago(3), 2, "ls", (Verdict::Allow, "inspection"));
        record.call(ago(2), 3, "rm x", (Verdict::AskAlways, "high-risk"));
        record.answered(ago(2), 3, Answer::Approve, 1_999);
        record.call(ago(1), 4, "rm y", (Verdict::AskAlways, "high-risk"));
        record.answered(ago(1), 4, Answer::Deny, 8_000);
        record.call(ago(1), 5, "make", (Verdict::AskOnce, "ordinary"));
        record.answered(ago(1), 5, Answer::Expired, 600_000);
        let told = record.habits(30).questions(NOW);
        assert_eq!((told.days, told.calls, told.questions), (30, 4, 3));
        assert_eq!((told.median_ms, told.under_two_seconds), (Some(8_000), 1));
        assert_eq!(told.answers["approved"], 1);
        assert_eq!((told.rules["high-risk"], told.rules["ordinary"]), (2, 1));
    }

    #[test]
    fn a_rule_is_proposed_where_many_like_calls_were_always_answered_with_yes() {
        let mut record = Record(Vec::new());
        let mut number = 0;
        let mut ask = |record: &mut Record, words: &str, verdict, answer| {
            number += 1;
            record.call(ago(2), number, words, (verdict, "ordinary"));
            record.answered(ago(2), number, answer, 9_000);
        };
        for n in 0..6 {
            let once = Verdict::AskOnce;
            ask(
                &mut record,
                &format!(r#"["cargo","build","-p","{n}"]"#),
                once,
                Answer::Approve,
            );
            ask(
                &mut record,
                &format!(r#"["git","push","{n}"]"#),
                once,
                Answer::Approve,
            );
            ask(
                &mut record,
                &format!(r#"["rm","{n}"]"#),
                Verdict::AskAlways,
                Answer::Approve,
            );
            ask(
                &mut record,
                &format!(r#"["odd;name","{n}"]"#),
                once,
                Answer::Approve,
            );
        }
        ask(
            &mut record,
            r#"["git","push","-f"]"#,
            Verdict::AskOnce,
            Answer::Deny,
        );
        let proposed = record.habits(30).missing();
        assert_eq!(
            proposed,
            [Missing {
                allow: "cargo build *".to_owned(),
                approved: 6,
                calls: 6,
            }]
        );
        assert_eq!(record.habits(1).missing(), []);
    }

    #[test]
    fn what_a_yes_would_have_covered_is_counted_by_its_key() {
        let mut record = Record(Vec::new());
        for (number, answer) in [(1, Answer::Approve), (2, Answer::Deny)] {
            record.call(ago(3), number, "make", (Verdict::AskOnce, "ordinary"));
            record.answered(ago(3), number, answer, 9_000);
        }
        record.call(ago(1), 3, "make", (Verdict::AskOnce, "ordinary"));
        record.call(ago(1), 4, "make all", (Verdict::AskOnce, "ordinary"));
        let like = |number| {
            let session = SessionId::parse("s").unwrap();
            let asked = record
                .habits(30)
                .like(&session, TurnId(1), CallId(number))?;
            Some((asked.calls, asked.approved, asked.denied))
        };
        assert_eq!(like(3), Some((3, 1, 1)));
        assert_eq!(like(4), Some((1, 0, 0)));
        assert_eq!(like(1), None, "it is over");
    }

    #[test]
    fn a_grant_that_nobody_used_in_a_week_could_go() {
        let mut record = Record(Vec::new());
        let principal = PrincipalId::parse("owner").unwrap();
        for (key, made) in [
            ("exec:used", 20),
            ("exec:unused", 20),
            ("exec:young", 2),
            ("exec:gone", 20),
        ] {
            let event = Event::GrantMade {
                principal: principal.clone(),
                key: key.to_owned(),
                expires: Millis(NOW.0 + 1),
            };
            record.add(ago(made), event);
        }
        let key = "exec:gone".to_owned();
        record.add(ago(19), Event::GrantRevoked { principal, key });
        record.call(ago(5), 1, "used", (Verdict::AskOnce, "ordinary"));
        let permit = Event::Permit {
            turn: TurnId(1),
            call: CallId(1),
            ground: Ground::Grant,
            digest: Digest::of(""),
            action: protocol::call::Action::Shell {
                script: String::new(),
            },
        };
        record.add(ago(5), permit);
        let unneeded = record.habits(30).unneeded(NOW);
        let keys: Vec<_> = unneeded.iter().map(|one| one.key.as_str()).collect();
        assert_eq!(keys, ["exec:unused"]);
    }

    #[test]
    fn a_call_that_would_be_decided_otherwise_is_found_and_whether_that_is_looser() {
        let mut record = Record(Vec::new());
        record.call(ago(1), 1, "rm -r x", (Verdict::Allow, "older"));
        record.call(ago(1), 2, "ls", (Verdict::AskAlways, "older"));
        record.call(ago(1), 3, "rm y", (Verdict::AskAlways, "high-risk"));
        let (all, otherwise) = record.habits(30).otherwise(Rules::shipped(), "/w");
        assert_eq!((all, otherwise.len()), (3, 2));
        let looser: Vec<_> = otherwise.iter().map(Otherwise::is_looser).collect();
        assert_eq!(looser, [false, true]);
    }
}
