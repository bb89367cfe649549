//! Boxes that may reach something: their link, the proxy that is spoken on their sockets, and what is
//! looked into.

mod authority;
mod copy;
pub(crate) mod forward;
mod head;
mod inspect;
pub(crate) mod link;
mod readable;
mod upload;
