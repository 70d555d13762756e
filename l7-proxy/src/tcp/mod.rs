//! The TCP proxy.
