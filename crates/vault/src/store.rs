//! The vault's folder as a whole: the secrets and the only handle that writes them, open or locked.

use std::path::Path;
use std::time::Duration;

use protocol::ids::SecretName;
use protocol::marks::{MarkKey, MarkKind, Marks, marks_of};
use protocol::parts::secret_parts;
use protocol::time::Millis;
use protocol::vault::{
    KeySource, LockState, MAX_HOSTS, NewDate, Protection, SecretEntry, SecretKind, SecretText,
    Subject, Terms, Unlocking,
};

use sandbox::memory;

use crate::attempts::Attempts;
use crate::backup;
use crate::entries::{Entries, Entry, MAX_PAST, Recorded, SECRETS};
use crate::fault::{StoreError, TOO_MANY_HOSTS};
use crate::keys::{self, Found, KEY, Keeping};
use crate::place::{self, Place};
use crate::seal::MasterKey;

/// The longest secret in bytes.
pub const MAX_VALUE: usize = 64 * 1024;

/// The most secrets.
pub const MAX_ENTRIES: usize = 1000;

/// The secrets, and the only handle that writes them.
pub struct Store {
    place: Place,
    keeping: Keeping,
    attempts: Attempts,
    state: State,
}

enum State {
    Locked,
    Open(Contents),
}

struct Contents {
    key: MasterKey,
    entries: Entries,
}

/// How a vault stands to what the record says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Standing {
    /// The record knows exactly this.
    Sound,
    /// This is what the record knows, changed further while there was no record.
    Ahead,
    /// It is neither: an older copy, or another vault, was put here.
    Behind,
}

impl Store {
    /// Makes the folder if it is missing; nothing is read or written in it yet.
    pub fn create_folder(dir: &Path) -> Result<(), StoreError> {
        place::create_folder(dir)
    }

    /// Takes the vault in this folder, or makes an empty one with a new key in a file. It is
    /// open if its key is in a file, and otherwise locked.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let place = Place::take(dir)?;
        let attempts = Attempts::read(&place, Millis::now())?;
        let (keeping, state) = match keys::read(&place)? {
            Some(Found::Wrapped(wrapped)) => (Keeping::Wrapped(wrapped), State::Locked),
            Some(Found::Bare(key)) => (Keeping::Bare, State::Open(Contents::read(&place, key)?)),
            None if place.has(SECRETS)? => return Err(StoreError::KeyMissing(place.path(KEY))),
            None => {
                let key = MasterKey::generate()?;
                let keeping = keys::keep(&place, &key, &Protection::KeyFile)?;
                let entries = Entries::default();
                (keeping, State::Open(Contents { key, entries }))
            }
        };
        Ok(Self {
            place,
            keeping,
            attempts,
            state,
        })
    }

    /// How its key is kept.
    pub fn key_source(&self) -> KeySource {
        match &self.keeping {
            Keeping::Bare => KeySource::KeyFile,
            Keeping::Wrapped(wrapped) => wrapped.source(),
        }
    }

    /// The keyring's entry, where that keeps its key.
    pub fn keyring_entry(&self) -> Option<&str> {
        match &self.keeping {
            Keeping::Bare => None,
            Keeping::Wrapped(wrapped) => wrapped.entry(),
        }
    }

    /// Whether its secrets can be opened.
    pub fn lock_state(&self) -> LockState {
        match self.state {
            State::Locked => LockState::Locked,
            State::Open(_) => LockState::Open,
        }
    }

    /// Wrong attempts to unlock it since the last right one, and how long the next one has to wait.
    pub fn attempts(&self) -> (u32, Option<Duration>) {
        (self.attempts.wrong, self.attempts.wait(Millis::now()))
    }

    /// Opens it.
    ///
    /// # Errors
    ///
    /// What is given is not it, or it is too early after wrong attempts; then nothing is tried.
    pub fn unlock(&mut self, with: &Unlocking) -> Result<(), StoreError> {
        let (Keeping::Wrapped(wrapped), State::Locked) = (&self.keeping, &self.state) else {
            return Err(StoreError::NotLocked);
        };
        match with {
            // Nobody guesses 32 random bytes; and a service that was given a wrong one must not have to wait.
            Unlocking::Key { .. } => {
                let key = wrapped.open(with)?;
                self.state = State::Open(Contents::read(&self.place, key)?);
                Ok(())
            }
            Unlocking::Passphrase { .. } if wrapped.source() != KeySource::Passphrase => {
                Err(StoreError::OtherKey)
            }
            Unlocking::Passphrase { .. } => {
                let now = Millis::now();
                if let Some(wait) = self.attempts.wait(now) {
                    let wrong = self.attempts.wrong;
                    return Err(StoreError::Slowed { wrong, wait });
                }
                self.attempts.count(&self.place, now)?;
                let key = wrapped.open(with)?;
                self.state = State::Open(Contents::read(&self.place, key)?);
                self.attempts.forget(&self.place)
            }
        }
    }

    /// Forgets the key until it is unlocked again.
    pub fn lock(&mut self) -> Result<(), StoreError> {
        match self.keeping {
            Keeping::Bare => Err(StoreError::NothingToLock),
            Keeping::Wrapped(_) => {
                self.state = State::Locked;
                Ok(())
            }
        }
    }

    /// Keeps the key otherwise; durable when this returns. What kept it before opens it no more.
    pub fn protect(&mut self, how: &Protection) -> Result<(), StoreError> {
        self.keeping = keys::keep(&self.place, &self.contents()?.key, how)?;
        // What was tried at the old protection says nothing of the new one.
        self.attempts.forget(&self.place)?;
        let next = self.contents()?.entries.clone();
        self.change(next)
    }

    /// Who may use this secret; none if there is no such secret.
    pub fn subject(&self, name: &SecretName) -> Result<Option<&Subject>, StoreError> {
        let entry = self.contents()?.entries.list.get(name);
        Ok(entry.map(|entry| &entry.subject))
    }

    /// What may be known of a secret; none if there is no such secret.
    pub fn entry(&self, name: &SecretName) -> Result<Option<SecretEntry>, StoreError> {
        let entry = self.contents()?.entries.list.get(name);
        Ok(entry.map(|entry| public((name, entry))))
    }

    /// Opens a secret. That the one who asks may have it is the caller's to see to.
    pub fn reveal(&self, name: &SecretName) -> Result<SecretText, StoreError> {
        let contents = self.contents()?;
        let entry = contents.find(name)?;
        if let Some(at) = entry.terms.expires.filter(|at| *at <= Millis::now()) {
            let name = name.clone();
            return Err(StoreError::Expired { name, at });
        }
        entry
            .open(&contents.key, name)
            .map_err(|_| StoreError::Tampered(self.place.path(SECRETS)))
    }

    /// Notes that a secret was used now; durable when this returns.
    pub fn touch(&mut self, name: &SecretName) -> Result<(), StoreError> {
        let contents = self.contents()?;
        let mut entry = contents.find(name)?.clone();
        entry.last_used = Some(Millis::now());
        let mut next = contents.entries.clone();
        next.list.insert(name.clone(), entry);
        self.commit(next)
    }

    /// Keeps a new secret; durable when this returns.
    pub fn add(
        &mut self,
        name: SecretName,
        subject: Subject,
        terms: Terms,
        value: &SecretText,
    ) -> Result<(), StoreError> {
        fits(&subject, &terms)?;
        let contents = self.contents()?;
        if contents.entries.list.contains_key(&name) {
            return Err(StoreError::Taken(name));
        }
        if contents.entries.list.len() >= MAX_ENTRIES {
            return Err(StoreError::Full);
        }
        let entry = Entry::seal(&contents.key, &name, subject, Millis::now(), terms, value)?;
        let mut next = contents.entries.clone();
        next.list.insert(name, entry);
        self.change(next)
    }

    /// Replaces the value of a secret; durable when this returns.
    pub fn rotate(
        &mut self,
        name: SecretName,
        value: &SecretText,
        expires: NewDate,
        rotate_by: NewDate,
    ) -> Result<(), StoreError> {
        let contents = self.contents()?;
        let old = contents.find(&name)?;
        let now = Millis::now();
        let terms = Terms {
            expires: moved(old.terms.expires, old.created, now, expires),
            rotate_by: moved(old.terms.rotate_by, old.created, now, rotate_by),
            ..old.terms.clone()
        };
        let entry = Entry::seal(&contents.key, &name, old.subject.clone(), now, terms, value)?;
        let mut next = contents.entries.clone();
        next.list.insert(name, entry);
        self.change(next)
    }

    /// Forgets a secret; durable when this returns.
    pub fn remove(&mut self, name: &SecretName) -> Result<(), StoreError> {
        let contents = self.contents()?;
        contents.find(name)?;
        let mut next = contents.entries.clone();
        next.list.remove(name);
        self.change(next)
    }

    /// All secrets by name, without their values.
    pub fn list(&self) -> Result<Vec<SecretEntry>, StoreError> {
        Ok(self.contents()?.entries.list.iter().map(public).collect())
    }

    /// What finds the secrets in a text, and the parts that are secret by themselves. What is too
    /// short to be looked for has none.
    pub fn marks(&self, key: &MarkKey) -> Result<Marks, StoreError> {
        let contents = self.contents()?;
        let mut marks = Vec::new();
        for (name, entry) in &contents.entries.list {
            let value = entry
                .open(&contents.key, name)
                .map_err(|_| StoreError::Tampered(self.place.path(SECRETS)))?;
            let _held = memory::lock(value.expose().as_bytes()).map_err(StoreError::Unlockable)?;
            let kind = match entry.terms.kind {
                SecretKind::Secret => MarkKind::Secret,
                SecretKind::Honeytoken => MarkKind::Honeytoken,
            };
            let parts = secret_parts(value.expose());
            let held: Result<Vec<_>, _> = (parts.iter())
                .map(|part| memory::lock(part.as_bytes()))
                .collect();
            let _held = (_held, held.map_err(StoreError::Unlockable)?);
            let texts = parts.iter().map(|part| part.as_str());
            for text in std::iter::once(value.expose()).chain(texts) {
                marks.extend(marks_of(key, name.clone(), kind, text));
            }
        }
        Ok(Marks::new(key, marks))
    }

    /// How many changes led to what it holds.
    pub fn generation(&self) -> Result<u64, StoreError> {
        Ok(self.contents()?.entries.generation)
    }

    /// What the record is told of it.
    pub fn recorded(&self) -> Result<Recorded, StoreError> {
        Ok(self.contents()?.entries.state())
    }

    /// How it stands to the last that the record says; none if the record says nothing.
    pub fn standing(&self, last: Option<&Recorded>) -> Result<Standing, StoreError> {
        let entries = &self.contents()?.entries;
        let own = entries.state();
        Ok(match last {
            Some(last) if *last == own => Standing::Sound,
            None if own.generation == 0 => Standing::Sound,
            Some(last) if entries.past.contains(last) => Standing::Ahead,
            // A record that knows no vault is one from before the first change.
            None if entries.past.iter().any(|past| past.generation == 0) => Standing::Ahead,
            Some(_) | None => Standing::Behind,
        })
    }

    /// Remembers that the record knows what it holds now; written with the next change.
    pub fn note_recorded(&mut self) -> Result<(), StoreError> {
        let State::Open(contents) = &mut self.state else {
            return Err(StoreError::Locked);
        };
        contents.entries.past.clear();
        Ok(())
    }

    /// Takes what it holds for right, whatever the record said last; durable when this returns.
    pub fn accept(&mut self, last: Option<Recorded>) -> Result<(), StoreError> {
        let next = self.contents()?.entries.clone();
        self.change_after(next, last)
    }

    /// All secrets sealed under a passphrase of their own.
    pub fn backup(&self, passphrase: &SecretText) -> Result<String, StoreError> {
        let contents = self.contents()?;
        let tampered = || StoreError::Tampered(self.place.path(SECRETS));
        backup::seal(&contents.entries.list, &contents.key, passphrase, tampered)
    }

    /// Replaces all secrets by those of a backup, whatever the record said last; durable when this returns.
    pub fn restore(
        &mut self,
        text: &str,
        passphrase: &SecretText,
        last: Option<Recorded>,
    ) -> Result<(), StoreError> {
        let contents = self.contents()?;
        let mut next = contents.entries.clone();
        next.list = backup::open(text, passphrase, &contents.key)?;
        self.change_after(next, last)
    }

    fn contents(&self) -> Result<&Contents, StoreError> {
        match &self.state {
            State::Locked => Err(StoreError::Locked),
            State::Open(contents) => Ok(contents),
        }
    }

    fn change_after(
        &mut self,
        mut next: Entries,
        last: Option<Recorded>,
    ) -> Result<(), StoreError> {
        if let Some(last) = last {
            next.generation = next.generation.max(last.generation);
            next.past = vec![last];
        }
        self.change(next)
    }

    fn change(&mut self, mut next: Entries) -> Result<(), StoreError> {
        next.past.push(self.contents()?.entries.state());
        let too_many = next.past.len().saturating_sub(MAX_PAST);
        next.past.drain(..too_many);
        next.generation += 1;
        self.commit(next)
    }

    /// What is in memory follows what is on disk, never the other way round.
    fn commit(&mut self, next: Entries) -> Result<(), StoreError> {
        let State::Open(contents) = &mut self.state else {
            return Err(StoreError::Locked);
        };
        next.write(&self.place, &contents.key)?;
        contents.entries = next;
        Ok(())
    }
}

impl Contents {
    fn read(place: &Place, key: MasterKey) -> Result<Self, StoreError> {
        let entries = Entries::read(place, &key)?;
        Ok(Self { key, entries })
    }

    fn find(&self, name: &SecretName) -> Result<&Entry, StoreError> {
        let entry = self.entries.list.get(name);
        entry.ok_or_else(|| StoreError::Unknown(name.clone()))
    }
}

fn public((name, entry): (&SecretName, &Entry)) -> SecretEntry {
    SecretEntry {
        name: name.clone(),
        subject: entry.subject.clone(),
        created: entry.created,
        last_used: entry.last_used,
        terms: entry.terms.clone(),
    }
}

/// Whether somebody can use a secret under these terms.
fn fits(subject: &Subject, terms: &Terms) -> Result<(), StoreError> {
    let bad = |what| Err(StoreError::BadTerms(what));
    if terms.hosts.len() > MAX_HOSTS {
        return bad(TOO_MANY_HOSTS);
    }
    match (subject, terms.kind, terms.hosts.is_empty()) {
        (Subject::Tool, SecretKind::Secret, true) => bad(
            "a secret for tools is bound to the hosts that it may be sent to; name them with --host",
        ),
        (Subject::Channel(_), SecretKind::Secret, false) => {
            bad("a channel's secret takes no host: its program reaches its platform only")
        }
        (Subject::Tool | Subject::Model | Subject::Channel(_), _, _) => Ok(()),
    }
}

/// A date after a rotation.
fn moved(old: Option<Millis>, since: Millis, now: Millis, new: NewDate) -> Option<Millis> {
    match new {
        NewDate::SameSpan => old.map(|old| now.after(old.since(since))),
        NewDate::Never => None,
        NewDate::At(at) => Some(at),
    }
}
