//! The only door out.
