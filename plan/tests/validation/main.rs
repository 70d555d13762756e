//! What becomes of resources when they are validated: what is taken from them, and what is refused by name.

mod cluster;
mod endpoint;
mod header;
mod matcher;
mod retry;
mod route;
mod support;
mod virtual_host;
