//! The catalogue of tools, and the built-in ones that run inside the box.
