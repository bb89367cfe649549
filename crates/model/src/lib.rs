//! Model wire formats, without sockets.
