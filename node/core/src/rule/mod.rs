//! Rules: compiled once into enums, evaluated on borrowed messages without allocation in the common case.

pub mod action;
pub mod cond;
pub mod convert;
pub mod cx;
pub mod expr;
pub mod fetch;
pub mod format;
pub mod hits;
pub mod matcher;
pub mod proxy;
pub mod registry;
mod reply;
mod run;
pub mod sample;
pub mod track;
pub mod vars;
