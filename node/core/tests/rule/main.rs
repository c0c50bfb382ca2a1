//! Rules, conditions and expressions, evaluated on connections and messages made by hand.

mod support;

mod acl;
mod ban;
mod facts;
mod pipeline;
mod registry;
mod reply;
mod track;
mod values;
