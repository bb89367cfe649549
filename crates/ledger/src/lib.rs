//! The record: events, chain, verification, and the program that writes it.
