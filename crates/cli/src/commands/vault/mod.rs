//! `bulkhead vault`: secrets. No command shows one.

mod backup;
mod decoy;
mod keep;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use config::Home;
use protocol::ids::SecretName;
use protocol::time::Millis;
use protocol::vault::{
    BoundHost, LockState, NewDate, SecretEntry, SecretKind, Subject, Terms, VaultState,
};
use serde::Serialize;
use serde_json::json;

use crate::fault::Fault;
use crate::vault_link::VaultLink;
use crate::{cards, dates, output, secrets};

/// What can be said with `vault`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    action: Option<Action>,
    /// Print JSON, one secret a line (without its value).
    #[arg(long, global = true)]
    json: bool,
    /// Read the passphrase of a locked vault from this file (`-`: standard input).
    #[arg(long, global = true, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Keep a new secret.
    Add(Box<Add>),
    /// The names, who may use them and where, when they were used last, and what is due.
    List,
    /// Replace the value of a secret.
    Rotate {
        /// Its name.
        name: SecretName,
        #[command(flatten)]
        value: Value,
        /// Its new end (a date, or `never`). Without it: as far off as it was.
        #[arg(long, value_name = "DATE", value_parser = date_or_never)]
        expires: Option<NewDate>,
        /// When to rotate it again (a date, a number of days, or `never`). Without it: as far off as it was.
        #[arg(long, value_name = "DATE|DAYS", value_parser = days_or_never)]
        rotate_by: Option<NewDate>,
    },
    /// Forget a secret.
    Remove {
        /// Its name.
        name: SecretName,
    },
    /// Whether it is open, how its key is kept, and whether it is what the record knows.
    Status,
    /// Keep the vault's key under something else than a file beside it.
    Protect(keep::Protect),
    /// Open the vault of a running Bulkhead.
    Unlock,
    /// Have a running vault forget its key until it is unlocked.
    Lock,
    /// Write all secrets to a file, sealed under a passphrase of its own.
    Backup(backup::Backup),
    /// Replace all secrets by those of a backup.
    Restore(backup::Restore),
}

#[derive(Debug, Args)]
struct Add {
    /// A name not yet taken.
    name: SecretName,
    /// Who may use it: `model`, `tool` or `channel:NAME`. A decoy is for nobody.
    #[arg(
        long = "for",
        value_name = "SUBJECT",
        required_unless_present = "honeytoken"
    )]
    subject: Option<Subject>,
    /// A host that it may be sent to (`api.example.com`, `*.example.com`); may be given several times. A tool's
    /// secret needs one.
    #[arg(long = "host", value_name = "HOST")]
    hosts: Vec<BoundHost>,
    /// The day from which on it stays closed (UTC).
    #[arg(long, value_name = "DATE", value_parser = coming_day)]
    expires: Option<Millis>,
    /// When to be reminded to rotate it: a date, or a number of days.
    #[arg(long, value_name = "DATE|DAYS", value_parser = dates::day_or_days)]
    rotate_by: Option<Millis>,
    #[command(flatten)]
    value: Value,
    #[command(flatten)]
    decoy: decoy::Arguments,
}

/// Where a value comes from.
#[derive(Debug, Args)]
struct Value {
    /// Read the value from this file instead of standard input.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

pub(crate) fn run(arguments: Arguments, home: &Home) -> Result<(), Fault> {
    let json = arguments.json;
    let passphrase = arguments.passphrase_file.as_deref();
    let open = || VaultLink::unlocked(home, passphrase);
    match arguments.action.unwrap_or(Action::List) {
        Action::Add(add) => add_one(*add, open, json),
        Action::List => list(&mut open()?, json),
        Action::Rotate {
            name,
            value,
            expires,
            rotate_by,
        } => {
            let question = format!("New value of {name} (not shown): ");
            let value = secrets::of(value.file.as_deref(), &question)?;
            let (expires, rotate_by) = (expires.unwrap_or_default(), rotate_by.unwrap_or_default());
            let mut link = open()?;
            let rotated = name.clone();
            link.ask(|vault| vault.rotate(rotated, value, expires, rotate_by))?;
            let (expired, _) = reminders(&link.ask(|vault| vault.list())?);
            let expired = expired.contains(&name);
            let words = match expired {
                false => {
                    "rotated; programs use the new value the next time they open it".to_owned()
                }
                true => format!(
                    "rotated, and still expired: it stays closed until `bulkhead vault rotate {name} --expires DATE`"
                ),
            };
            let facts = json!({ "done": "rotated", "name": name, "expired": expired });
            output::done(json, &words, &facts)
        }
        Action::Remove { name } => {
            let facts = json!({ "done": "removed", "name": name });
            open()?.ask(|vault| vault.remove(name))?;
            output::done(json, "removed", &facts)
        }
        Action::Status => status(&VaultLink::open(home)?.state()?, json),
        Action::Protect(how) => keep::protect(&how, &mut open()?, json),
        Action::Unlock => keep::unlock(home, passphrase, json),
        Action::Lock => keep::lock(home, json),
        Action::Backup(to) => backup::backup(&to, &mut open()?, json),
        Action::Restore(from) => backup::restore(&from, &mut open()?, json),
    }
}

fn add_one(
    add: Add,
    open: impl FnOnce() -> Result<VaultLink, Fault>,
    json: bool,
) -> Result<(), Fault> {
    let terms = Terms {
        hosts: add.hosts,
        kind: add.decoy.kind(),
        expires: add.expires,
        rotate_by: add.rotate_by,
    };
    let name = add.name;
    let facts = json!({ "done": "kept", "name": name, "kind": terms.kind });
    let (value, planted) = match add.decoy.plant()? {
        Some(made) => (made.value, Some(made.file)),
        None => {
            let question = format!("Value of {name} (not shown): ");
            (secrets::of(add.value.file.as_deref(), &question)?, None)
        }
    };
    let subject = add.subject.unwrap_or(Subject::Tool);
    let kept = open().and_then(|mut link| link.ask(|vault| vault.add(name, subject, terms, value)));
    if let Err(fault) = kept {
        if let Some(file) = planted {
            file.take_back();
        }
        return Err(fault);
    }
    let words = match planted {
        None => "kept".to_owned(),
        Some(file) => format!(
            "kept, and planted in {:?}; whoever uses or sends it is stopped and reported",
            file.path()
        ),
    };
    output::done(json, &words, &facts)
}

/// What may be known of a secret, and whether something is to be done about it.
#[derive(Serialize)]
struct Listed<'a> {
    #[serde(flatten)]
    entry: &'a SecretEntry,
    expired: bool,
    due: bool,
}

fn list(link: &mut VaultLink, json: bool) -> Result<(), Fault> {
    let entries = link.ask(|vault| vault.list())?;
    let now = Millis::now();
    if json {
        return entries.iter().try_for_each(|entry| {
            output::json(&Listed {
                entry,
                expired: entry.is_expired(now),
                due: entry.is_due(now),
            })
        });
    }
    if entries.is_empty() {
        return output::line("the vault is empty");
    }
    let rows: Vec<_> = entries.iter().map(|entry| row(entry, now)).collect();
    output::table(
        ["NAME", "FOR", "HOSTS", "CREATED", "LAST USED", "NOTE"],
        &rows,
    )
}

fn row(entry: &SecretEntry, now: Millis) -> [String; 6] {
    let hosts: Vec<&str> = entry.terms.hosts.iter().map(BoundHost::as_str).collect();
    let subject = match entry.terms.kind {
        SecretKind::Secret => entry.subject.to_string(),
        SecretKind::Honeytoken => "nobody (honeytoken)".to_owned(),
    };
    [
        entry.name.to_string(),
        subject,
        hosts.join(" "),
        cards::shown(entry.created),
        entry.last_used.map_or("never".to_owned(), cards::shown),
        note(entry, now),
    ]
}

/// What its dates say.
fn note(entry: &SecretEntry, now: Millis) -> String {
    let mut notes = Vec::new();
    if let Some(end) = entry.terms.expires {
        let word = if entry.is_expired(now) {
            "EXPIRED"
        } else {
            "expires"
        };
        notes.push(format!("{word} {}", dates::shown(end)));
    }
    if let Some(due) = entry.terms.rotate_by {
        let word = if entry.is_due(now) {
            "ROTATE, due since"
        } else {
            "rotate by"
        };
        notes.push(format!("{word} {}", dates::shown(due)));
    }
    notes.join("; ")
}

fn status(state: &VaultState, json: bool) -> Result<(), Fault> {
    match json {
        true => output::json(state),
        false => in_words(state).iter().try_for_each(output::line),
    }
}

/// How the vault stands, in lines for people.
pub(crate) fn in_words(state: &VaultState) -> Vec<String> {
    let lock = match state.lock {
        LockState::Open => "open",
        LockState::Locked => "locked; channels wait until `bulkhead vault unlock`",
    };
    let mut lines = vec![format!("{lock}; its key is kept under: {}", state.key)];
    if state.wrong_attempts > 0 {
        let next = state.next_attempt.map_or("now".to_owned(), cards::shown);
        lines.push(format!(
            "{} wrong attempts to unlock it; the next one is taken {next}",
            state.wrong_attempts
        ));
    }
    if let Some(last) = state.rolled_back {
        lines.push(format!(
            "an older copy, or another vault, was put in its place: the record knows of change {last}. Nothing is \
             opened until `bulkhead vault restore`"
        ));
    }
    lines
}

/// Names of what has expired, and of what is to be rotated.
pub(crate) fn reminders(entries: &[SecretEntry]) -> (Vec<SecretName>, Vec<SecretName>) {
    let now = Millis::now();
    let those = |is: fn(&SecretEntry, Millis) -> bool| {
        let found = entries.iter().filter(|entry| is(entry, now));
        found.map(|entry| entry.name.clone()).collect()
    };
    (those(SecretEntry::is_expired), those(SecretEntry::is_due))
}

/// A day that has not begun: from any other on a secret would be closed at once.
fn coming_day(text: &str) -> Result<Millis, String> {
    let day = dates::day(text)?;
    match day > Millis::now() {
        true => Ok(day),
        false => Err(format!(
            "{text} has begun or is past (UTC), so the secret would never open; name a later day"
        )),
    }
}

fn date_or_never(text: &str) -> Result<NewDate, String> {
    match text {
        "never" => Ok(NewDate::Never),
        text => coming_day(text).map(NewDate::At),
    }
}

fn days_or_never(text: &str) -> Result<NewDate, String> {
    match text {
        "never" => Ok(NewDate::Never),
        text => dates::day_or_days(text).map(NewDate::At),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(expires: Option<Millis>, rotate_by: Option<Millis>) -> SecretEntry {
        SecretEntry {
            name: "hub".parse().unwrap(),
            subject: Subject::Tool,
            created: Millis(0),
            last_used: None,
            terms: Terms {
                expires,
                rotate_by,
                ..Terms::default()
            },
        }
    }

    #[test]
    fn what_is_due_is_said_and_what_is_not_has_its_date() {
        let day = |text| dates::day(text).ok();
        let now = day("2027-01-02").unwrap();
        let of = |expires, rotate_by| note(&entry(expires, rotate_by), now);
        assert_eq!(of(None, None), "");
        assert_eq!(of(day("2027-06-01"), None), "expires 2027-06-01");
        assert_eq!(
            of(day("2027-01-02"), day("2027-01-01")),
            "EXPIRED 2027-01-02; ROTATE, due since 2027-01-01"
        );
    }

    #[test]
    fn the_names_of_what_is_due_are_told() {
        let past = Some(Millis(1));
        let (expired, due) = reminders(&[entry(past, None), entry(None, past), entry(None, None)]);
        assert_eq!((expired.len(), due.len()), (1, 1));
    }
}
