//! Layers over the workspace: where boxes write, and what becomes of it.
//!
//! They are made, kept and thrown away by the program `bulkhead-workspace`; this is the side that
//! asks for them.

use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use protocol::frame::{Link, LinkError};
use protocol::ids::CallRef;
use protocol::runner::Changes;
use protocol::workspace::{Base, LayerFolders, LayerId, LayerKind, LayerReply, LayerRequest};

use crate::run::Refused;

/// A layer that nobody decided about yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Its name.
    pub id: LayerId,
    /// Where it is.
    pub folders: LayerFolders,
    /// A file that begins with the number of the newest entry of the history.
    pub sequence: PathBuf,
}

/// Whoever makes layers and decides about them.
pub trait Layers: Debug + Send + Sync {
    /// Makes an empty one.
    fn begin(&self, kind: LayerKind) -> Result<Layer, Refused>;
    /// Makes its changes those of the workspace. Its box is gone.
    fn keep(&self, layer: LayerId, base: Base, origin: Option<CallRef>)
    -> Result<Changes, Refused>;
    /// Tells its changes and throws them away. Its box is gone.
    fn discard(&self, layer: LayerId) -> Result<Changes, Refused>;
    /// Throws it away unseen.
    fn forget(&self, layer: LayerId);
}

/// The end of the link that asks.
pub type LayerLink = Link<LayerRequest, LayerReply>;

/// Layers from the program that keeps the workspace.
#[derive(Debug, Default)]
pub struct Linked(Mutex<Option<LayerLink>>);

impl Linked {
    /// Uses this link from now on.
    pub fn link(&self, link: LayerLink) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(link);
    }

    fn ask(&self, request: &LayerRequest) -> Result<LayerReply, Refused> {
        let mut link = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = link
            .as_ref()
            .ok_or(LinkError::Closed)
            .and_then(|link| link.send(request).and_then(|()| link.receive()));
        match asked {
            Ok(LayerReply::Refused { reason, fix }) => Err(Refused { reason, fix }),
            Ok(reply) => Ok(reply),
            Err(error) => {
                // What comes later would be the answer to another question.
                *link = None;
                Err(Refused {
                    reason: format!("the program that keeps the workspace does not answer: {error}"),
                    fix: "it is started again by itself; try again in a moment, and see `bulkhead status`"
                        .to_owned(),
                })
            }
        }
    }

    fn changes(&self, request: &LayerRequest) -> Result<Changes, Refused> {
        match self.ask(request)? {
            LayerReply::Changes { changes } => Ok(changes),
            LayerReply::Begun { .. } | LayerReply::Forgotten | LayerReply::Refused { .. } => {
                Err(self.out_of_step())
            }
        }
    }

    fn out_of_step(&self) -> Refused {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
        Refused {
            reason: "the program that keeps the workspace answered something else".to_owned(),
            fix: "install the programs of one version together".to_owned(),
        }
    }
}

impl Layers for Linked {
    fn begin(&self, kind: LayerKind) -> Result<Layer, Refused> {
        match self.ask(&LayerRequest::Begin { kind })? {
            LayerReply::Begun {
                layer,
                folders,
                sequence,
            } => Ok(Layer {
                id: layer,
                folders,
                sequence,
            }),
            LayerReply::Changes { .. } | LayerReply::Forgotten | LayerReply::Refused { .. } => {
                Err(self.out_of_step())
            }
        }
    }

    fn keep(
        &self,
        layer: LayerId,
        base: Base,
        origin: Option<CallRef>,
    ) -> Result<Changes, Refused> {
        self.changes(&LayerRequest::Keep {
            layer,
            base,
            origin,
        })
    }

    fn discard(&self, layer: LayerId) -> Result<Changes, Refused> {
        self.changes(&LayerRequest::Discard { layer })
    }

    fn forget(&self, layer: LayerId) {
        // If the program is gone, its next start removes what nobody holds.
        let _ = self.ask(&LayerRequest::Forget { layer });
    }
}
