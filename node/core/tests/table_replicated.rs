//! A replicated table that has no peers is a table like any other: all tests of tables, once more.

#![allow(clippy::duplicate_mod)] // each of them brings its helpers

#[path = "table_basic.rs"]
mod basic;
#[path = "table_model.rs"]
mod model;
#[path = "table_threads.rs"]
mod threads;
#[path = "table_values.rs"]
mod values;
