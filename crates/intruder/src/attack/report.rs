//! What is told of the attempts.

use std::fs::File;
use std::io::{self, Write as _};
use std::sync::{Mutex, PoisonError};

use crate::scene::{Line, canaries};
use crate::table::Asset;

/// Writes lines to a file that was opened before the confinement.
pub(super) struct Reporter(Mutex<File>);

impl Reporter {
    pub(super) fn new(file: File) -> Self {
        Self(Mutex::new(file))
    }

    /// One line. If it cannot be written, it is missed, and a missing attempt fails the run.
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
        self.tell(&Line::Attempt {
            asset,
            probe: probe.to_owned(),
            through: result.is_ok(),
            detail: match result {
                Ok(_) => "it worked".to_owned(),
                Err(error) => error.to_string(),
            },
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
