//! The real programs under a home of their own.
