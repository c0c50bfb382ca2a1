//! HTTP/1 as the core reads and writes it.

mod body;
mod forward;
mod properties;
mod requests;
mod responses;
mod smuggling;
mod values;
