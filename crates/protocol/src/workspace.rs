//! The links of the program that keeps the workspace.
//!
//! What runs in a box writes to a layer over the workspace, never to the workspace. Afterwards
//! the layer's changes are kept or thrown away as one step. What was kept can be undone.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::ids::{CallRef, Digest, SessionId, TurnId};
use crate::runner::{Change, Changes, EntryId};
use crate::time::Millis;

/// A layer: the changes of one box that nobody decided about yet. Another start of the program that makes them
/// gives out other numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LayerId(pub u64);

/// How a layer lies over the workspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LayerKind {
    /// Overlayfs: costs what is changed.
    Overlay,
    /// A copy, sharing blocks where the file system can: costs what is there.
    Copy,
}

/// The folders of a layer on the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum LayerFolders {
    /// `upperdir` and `workdir` of an overlay whose lower folder is the workspace.
    Overlay {
        /// What was changed.
        upper: PathBuf,
        /// Overlayfs' own.
        work: PathBuf,
    },
    /// The copy.
    Copy {
        /// What a box gets as its workspace.
        folder: PathBuf,
    },
}

/// When a box began, so that what others changed since is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Base {
    /// What the sequence file held: the newest entry of the history that was whole.
    pub entry: EntryId,
    /// The clock of the file system (`CLOCK_REALTIME_COARSE`), in nanoseconds since 1970.
    pub since: i64,
}

/// The folder in which git keeps what it obeys beside its data.
pub const GIT_FOLDER: &str = ".git";

/// What lies outside of that folder and git is told by custom to obey: configuration, hooks.
pub const OBEYED_BY_GIT: [&str; 3] = [".gitconfig", ".githooks", ".husky"];

/// Whether a step may change what git obeys on the host: hooks and configuration in folders `.git`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GitFolders {
    /// It may.
    Open,
    /// It may not; the step is refused whole.
    Closed,
}

/// From the runner. Each gets one reply, in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum LayerRequest {
    /// Make an empty layer.
    Begin {
        /// How.
        kind: LayerKind,
    },
    /// The box is gone; make its changes those of the workspace, as one step.
    Keep {
        /// Which.
        layer: LayerId,
        /// When its box began.
        base: Base,
        /// The call that the box ran; none if nobody asked through the gateway.
        origin: Option<CallRef>,
        /// Whether what git obeys on the host may be among them.
        git: GitFolders,
    },
    /// The box is gone; tell its changes and throw them away.
    Discard {
        /// Which.
        layer: LayerId,
    },
    /// Throw it away unseen: its box never began, or changed nothing.
    Forget {
        /// Which.
        layer: LayerId,
    },
    /// The same, and no process can write to it any more: it may be that of another box.
    GiveBack {
        /// Which.
        layer: LayerId,
    },
}

/// To the runner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum LayerReply {
    /// It is there.
    Begun {
        /// Its name.
        layer: LayerId,
        /// Where it is.
        folders: LayerFolders,
        /// A file whose first 8 bytes, little-endian, are the newest whole entry. It is never replaced,
        /// only written to, so that it can be kept open.
        sequence: PathBuf,
    },
    /// To Keep and Discard. That nothing could be kept is a fate, not a refusal.
    Changes {
        /// What was changed.
        changes: Changes,
    },
    /// To Forget and GiveBack.
    Forgotten,
    /// Not done.
    Refused {
        /// Why.
        reason: String,
        /// What to do.
        fix: String,
    },
}

/// From the gateway. Each gets one reply, in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum HistoryRequest {
    /// What can be undone.
    Entries {
        /// At most so many, newest first.
        most: u32,
    },
    /// What undoing would change. Nothing is changed.
    Preview {
        /// How far back.
        to: UndoTo,
        /// Whether texts are compared line by line.
        diff: Diff,
    },
    /// Undo exactly what was shown.
    Undo {
        /// How far back.
        to: UndoTo,
        /// Of the preview; if the workspace is not as it was then, it is refused.
        digest: Digest,
    },
}

/// Before what the workspace is to be as it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "to", rename_all = "snake_case", deny_unknown_fields)]
pub enum UndoTo {
    /// The newest turn (or single run) that changed something.
    Newest,
    /// This turn.
    Turn {
        /// Of which session.
        session: SessionId,
        /// Which.
        turn: TurnId,
    },
    /// This entry.
    Entry {
        /// Which.
        entry: EntryId,
    },
}

/// Whether a preview holds texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Diff {
    /// Names and states only.
    None,
    /// Also a unified diff of texts, cut where it gets long.
    Unified,
}

/// To the gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum HistoryReply {
    /// What can be undone.
    Entries {
        /// Newest first.
        entries: Vec<Entry>,
    },
    /// What undoing would change.
    Preview {
        /// All of it.
        preview: Preview,
    },
    /// It is undone, and is itself an entry that can be undone.
    Undone {
        /// The entry that undid it.
        entry: EntryId,
        /// What changed.
        changes: Changes,
    },
    /// Not done; the workspace is as it was.
    Refused {
        /// Why.
        reason: String,
        /// What to do.
        fix: String,
    },
}

/// An entry of the history: one step of the workspace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Its number.
    pub entry: EntryId,
    /// When it was kept.
    pub time: Millis,
    /// Where it comes from.
    pub origin: Origin,
    /// How many files, links and folders it changed.
    pub changes: u64,
    /// What its undoing takes of the disk, in bytes.
    pub bytes: u64,
}

/// What made an entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "snake_case", deny_unknown_fields)]
pub enum Origin {
    /// A call of a turn.
    Call {
        /// Which.
        call: CallRef,
    },
    /// A run that was not asked for through the gateway (`bulkhead sandbox exec`).
    Run,
    /// An undo: it brought back what was there before this entry.
    Undo {
        /// The oldest entry that was undone.
        entry: EntryId,
    },
}

/// What undoing would change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preview {
    /// Of all of this and of the state of the workspace that it is about.
    pub digest: Digest,
    /// The entries that are undone, newest first.
    pub entries: Vec<Entry>,
    /// From the present state to what it will be; at most [`Changes::MOST`].
    pub changes: Vec<Change>,
    /// How many more there are.
    pub more: u64,
    /// Paths that somebody changed since by other means, and whose present state would be lost from the
    /// workspace (it stays in the history).
    pub changed_since: Vec<String>,
    /// The unified diff, if it was asked for.
    pub diff: String,
}
