//! Wire formats between Remora nodes: the generated code of `peers.proto` and nothing else.

/// Messages and service of `proto/remora/peers/v1/peers.proto`, which describes them.
#[allow(missing_docs, clippy::all, unused_qualifications, rust_2018_idioms)] // generated
pub mod peers {
    pub mod v1 {
        tonic::include_proto!("remora.peers.v1");
    }
}
