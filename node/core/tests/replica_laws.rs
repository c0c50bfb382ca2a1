//! The laws of merging, of the model: whatever happens to nodes and links, once everything has arrived all nodes read the
//! same, and what the history allows to be known exactly is exact.

mod replica_model;
mod table_common;

use replica_model::histories::{any_history, truth};
use replica_model::node::ModelNode;
use replica_model::run;

fn model(lineage: u64, expire: Option<i64>) -> ModelNode {
    ModelNode::new(lineage, expire, usize::MAX)
}

#[test]
fn the_model_agrees_with_itself() {
    run("no expiry", 2_000, |seed| any_history(seed, None, model));
}

#[test]
fn the_model_agrees_with_itself_about_lives() {
    run("expiry", 2_000, |seed| {
        any_history(seed, Some(1_500), model)
    });
}

#[test]
fn the_model_in_step_is_one_table() {
    run("in step", 300, |seed| truth(seed, true, None, model, None));
    run("in step, expiry", 300, |seed| {
        truth(seed, true, Some(1_500), model, None)
    });
}

#[test]
fn the_model_counts_everything_once() {
    run("counting", 1_000, |seed| {
        truth(seed, false, None, model, None)
    });
}

/// One node keeps only three keys: what it forgets comes back to it, and to nobody is anything lost.
#[test]
fn the_model_survives_evictions() {
    fn one_small(lineage: u64, expire: Option<i64>) -> ModelNode {
        ModelNode::new(lineage, expire, if lineage == 1 { 3 } else { usize::MAX })
    }
    run("evictions", 300, |seed| {
        truth(seed, true, None, one_small, Some(1))
    });
    run("evictions, expiry", 300, |seed| {
        truth(seed, true, Some(1_500), one_small, Some(1))
    });
}
