//! The decision, pure: what a tool call may do.
