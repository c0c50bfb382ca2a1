//! Whole configurations: what they compile to, and what is said about those that are wrong.

mod support;

mod docs;
mod examples;
mod peers_errors;
mod peers_plan;
mod peers_tls;
mod random_texts;
mod sections;
mod statements;
mod text;
mod warnings;
