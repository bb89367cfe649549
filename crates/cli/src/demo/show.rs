//! What the demo prints: a line for each attempt as it goes, then what has to hold.

use std::io::{self, IsTerminal as _};
use std::path::Path;
use std::time::Duration;

use protocol::event::CallOutcome;
use protocol::runner::{RunEnd, RunOutcome};
use serde::Serialize;

use super::attempts::{Asked, Attempt, Seen};
use super::judge::Check;
use crate::fault::Fault;
use crate::output;
use crate::terminal::harmless_line;

/// The widest call that is shown whole, in characters.
const CALL_WIDTH: usize = 52;

/// The longest account of what happened, in characters.
const RESULT_WIDTH: usize = 72;

/// How it is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// For people, as it goes.
    Text,
    /// One line of JSON at the end.
    Json,
}

/// Whether letters may have colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Colours {
    Yes,
    No,
}

/// What is printed where.
pub(super) struct Show {
    form: Form,
    colours: Colours,
    /// Long names of folders, and what stands for them.
    short: Vec<(String, &'static str)>,
}

/// The JSON form.
#[derive(Serialize)]
struct Whole<'a> {
    ok: bool,
    attempts: Vec<Line<'a>>,
    checks: &'a [Check],
    seconds: f64,
}

#[derive(Serialize)]
struct Line<'a> {
    wants: &'a str,
    call: String,
    asked: Asked,
    happened: String,
    row: u64,
    stopped: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    fault: Option<&'a str>,
}

impl Show {
    /// Says what is about to happen.
    pub(super) fn begin(form: Form, root: &Path, outside: Option<&Path>) -> Result<Self, Fault> {
        let colours = match io::stdout().is_terminal() {
            true => Colours::Yes,
            false => Colours::No,
        };
        let outside = outside.map(|path| (path.display().to_string(), "~/.ssh"));
        let root = (root.display().to_string(), "~/.demo");
        let show = Self {
            form,
            colours,
            short: outside.into_iter().chain([root]).collect(),
        };
        show.line(&show.strong("A model turned against its owner, on the real Bulkhead."))?;
        show.line("A script plays the model; programs, box and record are the real ones.")?;
        show.line("")?;
        show.line(&show.faint(&format!(
            "{:>5}  {:<10}  {:<CALL_WIDTH$}  what happened",
            "row", "", "what the model tried"
        )))?;
        Ok(show)
    }

    /// One attempt that is over.
    pub(super) fn attempt(&self, attempt: &Attempt, seen: &Seen) -> Result<(), Fault> {
        let mark = match attempt.fault(seen) {
            None => self.good("stopped"),
            Some(_) => self.bad("NOT STOPPED"),
        };
        let (pad, call) = (
            10_usize.saturating_sub("stopped".len()),
            fit(&self.shortened(&attempt.call()), CALL_WIDTH),
        );
        let happened = match attempt.fault(seen) {
            None => self.happened(attempt, seen),
            Some(fault) => format!("{}; {}", self.bad(fault), self.happened(attempt, seen)),
        };
        self.line(&format!(
            "{:>5}  {mark}{:pad$}  {call:<CALL_WIDTH$}  {happened}",
            seen.row, ""
        ))
    }

    /// What has to hold, and the verdict.
    pub(super) fn end(
        &self,
        attempts: &[Attempt],
        seen: &[Seen],
        checks: &[Check],
        took: Duration,
        kept: Option<&Path>,
    ) -> Result<(), Fault> {
        let ok = checks.iter().all(|check| check.held);
        if self.form == Form::Json {
            let lines = attempts.iter().zip(seen).map(|(attempt, seen)| Line {
                wants: attempt.wants,
                call: attempt.call(),
                asked: seen.asked,
                happened: self.happened(attempt, seen),
                row: seen.row,
                stopped: attempt.fault(seen).is_none(),
                fault: attempt.fault(seen),
            });
            return output::json(&Whole {
                ok,
                attempts: lines.collect(),
                checks,
                seconds: took.as_secs_f64(),
            });
        }
        output::line("")?;
        let widest = checks.iter().map(|check| check.check.len()).max();
        let width = widest.unwrap_or_default();
        for check in checks {
            let mark = match check.held {
                true => self.good("holds"),
                false => self.bad("BROKEN"),
            };
            output::line(format!("{mark}  {:<width$}  {}", check.check, check.detail))?;
        }
        output::line("")?;
        let took = took.as_secs_f64();
        output::line(match ok {
            true => self.strong(&format!(
                "Everything was stopped ({took:.1} s). The model could only ask."
            )),
            false => self.bad("NOT everything was stopped."),
        })?;
        match kept {
            Some(root) => output::line(format!(
                "Left behind: {root:?}. Look at it with: bulkhead --home {:?} audit log",
                root.join("home")
            )),
            None => Ok(()),
        }
    }

    /// What came of a call, in a few words.
    fn happened(&self, attempt: &Attempt, seen: &Seen) -> String {
        let asked = match (seen.asked, attempt.said) {
            (Asked::Never, _) => "",
            (Asked::SaidNo, "") => "asked, you said no: ",
            (Asked::SaidNo, _) => "asked though it says \"approved\", you said no: ",
            (Asked::SaidYes, _) => "asked, you said yes: ",
        };
        let what = match &seen.outcome {
            None => "nothing is on record".to_owned(),
            Some(CallOutcome::Unknown) => "outcome unknown".to_owned(),
            Some(CallOutcome::NotRun { .. }) if seen.asked == Asked::SaidNo => {
                "it did not run".to_owned()
            }
            Some(CallOutcome::NotRun { reason }) => {
                format!("refused: {}", first_clause(&self.shortened(reason)))
            }
            Some(CallOutcome::Ran { run }) => format!("in the box, {}", self.end_of(run)),
            Some(CallOutcome::Fetched { answer }) => format!("status {}", answer.status),
            Some(CallOutcome::NotFetched { fault }) => self.shortened(&fault.to_string()),
        };
        fit(&format!("{asked}{what}"), RESULT_WIDTH)
    }

    fn end_of(&self, run: &RunOutcome) -> String {
        let said = [&run.stderr, &run.stdout];
        let last = said.iter().find_map(|text| text.trim().lines().last());
        match (last, run.end) {
            (Some(line), _) => self.shortened(line),
            (None, RunEnd::Exited { code: 0 }) => "without anything there".to_owned(),
            (None, RunEnd::Exited { code }) => format!("ended with {code}"),
            (None, RunEnd::Signalled { signal }) => format!("killed by signal {signal}"),
            (None, RunEnd::TimedOut) => "its time was up".to_owned(),
            (None, RunEnd::Killed) => "killed".to_owned(),
        }
    }

    fn shortened(&self, text: &str) -> String {
        let text = harmless_line(text).into_owned();
        let replace = |text: String, (long, short): &(String, &str)| text.replace(long, short);
        self.short.iter().fold(text, replace)
    }

    fn line(&self, line: &str) -> Result<(), Fault> {
        match self.form {
            Form::Text => output::line(line),
            Form::Json => Ok(()),
        }
    }

    fn good(&self, text: &str) -> String {
        self.painted("32", text)
    }

    fn bad(&self, text: &str) -> String {
        self.painted("1;31", text)
    }

    fn strong(&self, text: &str) -> String {
        self.painted("1", text)
    }

    fn faint(&self, text: &str) -> String {
        self.painted("2", text)
    }

    fn painted(&self, colour: &str, text: &str) -> String {
        match (self.colours, self.form) {
            (Colours::Yes, Form::Text) => format!("\x1b[{colour}m{text}\x1b[0m"),
            (Colours::No, _) | (Colours::Yes, Form::Json) => text.to_owned(),
        }
    }
}

/// The text up to its first semicolon.
fn first_clause(text: &str) -> &str {
    text.split(';').next().unwrap_or(text)
}

/// The text, or its beginning with three dots.
fn fit(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let kept: String = text.chars().take(width.saturating_sub(3)).collect();
    format!("{kept}...")
}

#[cfg(test)]
mod tests {
    use super::super::attempts::tests::{all, not_run, stopped};
    use super::*;

    fn show() -> Show {
        Show {
            form: Form::Text,
            colours: Colours::No,
            short: vec![
                ("/outside".to_owned(), "~/.ssh"),
                ("/home".to_owned(), "~/.demo"),
            ],
        }
    }

    #[test]
    fn what_happened_is_told_in_few_words() {
        let told: Vec<String> = all()
            .iter()
            .map(|attempt| show().happened(attempt, &stopped(attempt)))
            .collect();
        assert_eq!(told[0], "refused: no");
        assert_eq!(told[1], "in the box, no such file");
        assert_eq!(told[2], "asked, you said yes: in the box, no such file");
        assert_eq!(told[3], "asked, you said no: it did not run");
        let nothing = Seen::default();
        assert_eq!(show().happened(&all()[0], &nothing), "nothing is on record");
    }

    #[test]
    fn long_texts_are_cut_where_it_can_be_seen_and_steer_no_terminal() {
        assert_eq!(fit("abcdef", 6), "abcdef");
        assert_eq!(fit("abcdefg", 6), "abc...");
        let seen = Seen {
            outcome: Some(not_run()),
            ..Seen::default()
        };
        assert!(show().happened(&all()[0], &seen).chars().count() <= RESULT_WIDTH);
        assert_eq!(show().shortened("/outside/\x1b[1m"), "~/.ssh/U+001B[1m");
    }
}
