//! Why a step does not happen.

use std::fmt::Display;

/// The workspace stays as it is.
#[derive(Debug, thiserror::Error)]
pub enum Stop {
    /// It cannot be done.
    #[error("{reason}; {fix}")]
    Refused {
        /// Why.
        reason: String,
        /// What to do.
        fix: String,
    },
    /// Somebody else changed the same paths meanwhile.
    #[error("somebody else changed the same paths meanwhile: {}", paths.join(", "))]
    Conflict {
        /// Which; at most a few.
        paths: Vec<String>,
    },
}

impl Stop {
    pub(crate) fn refuse(reason: impl Display, fix: impl Display) -> Self {
        Self::Refused {
            reason: reason.to_string(),
            fix: fix.to_string(),
        }
    }

    /// A call that failed, on what.
    pub(crate) fn at<E: Into<std::io::Error>>(what: impl Display) -> impl FnOnce(E) -> Self {
        move |error| {
            let error = error.into();
            if error.kind() == std::io::ErrorKind::InvalidFilename {
                // The path of such a folder is nothing to read.
                return Self::refuse(error.to_string(), "make no folders as deep as that");
            }
            let fix = match error.kind() {
                std::io::ErrorKind::PermissionDenied => {
                    "give the user of Bulkhead the right to read and change it, or remove it"
                }
                std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                    "make room on the disk"
                }
                _ => "look at the disk and at who else changes these folders, then try again",
            };
            Self::refuse(format!("{what}: {error}"), fix)
        }
    }
}
