//! The link to the gateway, as every channel uses it.
