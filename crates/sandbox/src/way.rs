//! Ways out of boxes, seen from outside: who takes their connections.

use std::fmt::Debug;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use protocol::box_link::{BoxReply, BoxRequest};
use protocol::control::ControlEnd;
use protocol::frame::LinkError;
use protocol::ids::CallRef;
use protocol::outbound::EgressRule;

use crate::run::Refused;

/// Whoever stands at the other end of the ways out of boxes.
pub trait Door: Debug + Send + Sync {
    /// Takes the connections of a box from now on; `listener` is the socket on which they come. Returns the
    /// certificate of who inspects them, PEM; empty if nobody does.
    fn open(
        &self,
        run: &CallRef,
        rules: &[EgressRule],
        listener: OwnedFd,
    ) -> Result<String, Refused>;
    /// Takes them no more. The box is gone.
    fn close(&self, run: &CallRef);
}

/// What a run may reach.
#[derive(Clone, Debug, Default)]
pub enum Outside {
    /// Nothing.
    #[default]
    Nothing,
    /// What these rules allow.
    Through {
        /// Who sees to it.
        door: Arc<dyn Door>,
        /// The call that it is.
        run: CallRef,
        /// The rules; at least one.
        rules: Vec<EgressRule>,
    },
}

impl Outside {
    /// Opens the door to the box that sent this socket; it closes when the guard is dropped.
    pub(crate) fn open(&self, listener: OwnedFd) -> Result<(OpenDoor, String), Refused> {
        match self {
            Self::Nothing => Err(Refused {
                reason: "a box without rules asked for a way out".to_owned(),
                fix: "this is an error in Bulkhead; please report it".to_owned(),
            }),
            Self::Through { door, run, rules } => {
                let authority = door.open(run, rules, listener)?;
                let open = OpenDoor {
                    door: Arc::clone(door),
                    run: run.clone(),
                    rules: rules.iter().map(|rule| rule.name.to_string()).collect(),
                };
                Ok((open, authority))
            }
        }
    }
}

/// A way out that is open until this is dropped.
#[derive(Debug)]
pub(crate) struct OpenDoor {
    door: Arc<dyn Door>,
    run: CallRef,
    /// The names of its rules.
    pub(crate) rules: Vec<String>,
}

impl Drop for OpenDoor {
    fn drop(&mut self) {
        self.door.close(&self.run);
    }
}

/// The end of the link to egress that asks.
type DoorLink = ControlEnd<BoxRequest, BoxReply>;

/// How long egress may take to open a door.
const PATIENCE: Duration = Duration::from_secs(10);

/// Egress, over the link that the supervisor made.
#[derive(Debug, Default)]
pub struct Egress(Mutex<Option<DoorLink>>);

impl Egress {
    /// Uses this link from now on. What was open over an older one is closed.
    pub fn link(&self, socket: OwnedFd) {
        let stream = UnixStream::from(socket);
        let limited = stream
            .set_read_timeout(Some(PATIENCE))
            .and_then(|()| stream.set_write_timeout(Some(PATIENCE)));
        match limited {
            Ok(()) => *self.locked() = Some(DoorLink::new(stream)),
            Err(error) => protocol::log!("bulkhead-sandbox: the link to egress: {error}"),
        }
    }

    /// The link is whole after each statement, so that a panic elsewhere leaves nothing half done.
    fn locked(&self) -> MutexGuard<'_, Option<DoorLink>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Door for Egress {
    fn open(
        &self,
        run: &CallRef,
        rules: &[EgressRule],
        listener: OwnedFd,
    ) -> Result<String, Refused> {
        let mut link = self.locked();
        let request = BoxRequest::Open {
            run: run.clone(),
            rules: rules.to_vec(),
        };
        let asked = match &*link {
            Some(link) => link
                .send_with_all(&request, &[listener.as_fd()])
                .and_then(|()| link.receive()),
            None => Err(LinkError::Closed),
        };
        match asked {
            Ok((BoxReply::Opened { run: of, authority }, _)) if of == *run => Ok(authority),
            Ok((
                BoxReply::Refused {
                    run: of,
                    reason,
                    fix,
                },
                _,
            )) if of == *run => Err(Refused { reason, fix }),
            Ok((BoxReply::Opened { .. } | BoxReply::Refused { .. }, _)) => {
                // What comes later would be the answer to another question.
                *link = None;
                Err(silent(&"it answered another question"))
            }
            Err(error) => {
                *link = None;
                Err(silent(&error))
            }
        }
    }

    fn close(&self, run: &CallRef) {
        let mut link = self.locked();
        let told = link
            .as_ref()
            .map(|link| link.send(&BoxRequest::Close { run: run.clone() }));
        if matches!(told, Some(Err(_))) {
            // Egress closes everything of a link that has ended.
            *link = None;
        }
    }
}

fn silent(error: &dyn std::fmt::Display) -> Refused {
    Refused {
        reason: format!("egress does not open a way out for the box: {error}"),
        fix: "it is started again by itself; try again in a moment, and see `bulkhead status`"
            .to_owned(),
    }
}
