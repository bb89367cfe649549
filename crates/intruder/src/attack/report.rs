//! What is told of the attempts.

use std::fs::File;
use std::io::{self, Write as _};
use std::sync::{Mutex, PoisonError};

use crate::scene::{Line, Outcome, canaries};
use crate::table::Asset;

/// Whether nobody said anything in time, which is neither a yes nor a no.
pub(super) fn is_silence(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}

/// Writes lines to a file that was opened before the confinement.
pub(super) struct Reporter(Mutex<File>);

impl Reporter {
    pub(super) fn new(file: File) -> Self {
        Self(Mutex::new(file))
    }

    /// One line. If it cannot be written, it is missed: the table says what has to be there.
    pub(super) fn tell(&self, line: &Line) {
        let Ok(mut text) = serde_json::to_vec(line) else {
            return;
        };
        text.push(b'\n');
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = file.write_all(&text);
    }

    /// An attempt, which went through if there is no error.
    pub(super) fn attempt<T>(&self, asset: Asset, probe: &str, result: &io::Result<T>) {
        let (outcome, detail) = match result {
            Ok(_) => (Outcome::Through, "it worked".to_owned()),
            Err(error) if is_silence(error) => (Outcome::NotKnown, error.to_string()),
            Err(error) => (Outcome::Refused, error.to_string()),
        };
        self.told(asset, probe, outcome, detail);
    }

    /// Something that has no answer, if it could be said.
    pub(super) fn said(&self, asset: Asset, probe: &str, sent: &io::Result<()>) {
        let (outcome, detail) = match sent {
            Ok(()) => (Outcome::Said, "it was said".to_owned()),
            Err(error) => (Outcome::NotKnown, format!("it could not be said: {error}")),
        };
        self.told(asset, probe, outcome, detail);
    }

    fn told(&self, asset: Asset, probe: &str, outcome: Outcome, detail: String) {
        self.tell(&Line::Attempt {
            asset,
            probe: probe.to_owned(),
            outcome,
            detail,
        });
    }

    /// Looks for what was laid out.
    pub(super) fn look(&self, probe: &str, bytes: &[u8]) {
        for text in canaries(bytes) {
            self.tell(&Line::Loot {
                probe: probe.to_owned(),
                text,
            });
        }
    }
}
