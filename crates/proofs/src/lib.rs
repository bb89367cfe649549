//! Proofs about the rules that are shipped; all of it is in `tests`.
//!
//! A package of its own, which nothing is built together with: the prover asks of libraries what
//! the programs must not have, such as tokio's handling of signals.
