//! Chat platforms: the common loop, and a program for each.
