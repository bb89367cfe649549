//! What is done to the disk, so that tests can stop a process before each.

/// A thing done that a crash may fall before or after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// An object goes from a layer to its slot.
    Stage,
    /// The journal is written.
    Journal,
    /// The step becomes true.
    Commit,
    /// An object goes into the workspace, or out of it.
    Apply,
    /// Modes and times of folders.
    Touch,
    /// What the step left over is removed.
    Clean,
    /// The step is marked as whole.
    Mark,
    /// The newest entry is told.
    Sequence,
    /// An old entry goes.
    Prune,
    /// A layer or an old entry is removed from the disk.
    Remove,
    /// A step that could not be applied is taken back.
    Back,
}

/// Told before each step. The program uses [`Uninterrupted`].
pub trait Steps: Send {
    /// This comes next.
    fn before(&self, step: Step);
}

/// Goes on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Uninterrupted;

impl Steps for Uninterrupted {
    fn before(&self, _: Step) {}
}
