//! The web page's program, whole, against browsers and pages that mean harm or are slow.

mod chat;
mod door;
mod http;
mod limits;
mod page;
