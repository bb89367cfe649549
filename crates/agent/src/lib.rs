//! The turn as a state machine, and the program that runs it.
