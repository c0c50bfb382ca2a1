//! A peer made by hand: it dials a node and says whatever a test wants, in well-formed HTTP/2 and gRPC.

use std::net::Ipv4Addr;

use bytes::Bytes;
use cluster_tests::wait::PATIENCE;
use h2::{RecvStream, SendStream};
use prost::Message;
use remora_proto::peers::v1::push_message::Kind as Push;
use remora_proto::peers::v1::reply_message::Kind as Reply;
use remora_proto::peers::v1::{
    Batch, ColumnDef, Hello, JournalSource, KeyType, PushMessage, ReplyMessage, TableDef, Values,
    batch,
};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::time::timeout;

/// The life of a node that never was.
pub(crate) const LINEAGE: u64 = 0x5eed_0000_0000_0001;

/// `gpc0`, by its position in the list of data types.
pub(crate) const GPC0: u32 = 2 << 7;

/// One dialed stream.
pub(crate) struct Impostor {
    runtime: Runtime,
    send: SendStream<Bytes>,
    recv: RecvStream,
    got: Vec<u8>,
}

impl Impostor {
    /// Dials the peers port of a node.
    pub(crate) fn dial(port: u16) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let (send, recv) = runtime.block_on(async {
            let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))
                .await
                .expect("the peers port");
            let (client, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
            tokio::spawn(async {
                // How it ends shows in the stream.
                let _ended = connection.await;
            });
            let mut client = client.ready().await.expect("HTTP/2");
            let request = http::Request::post("http://node/remora.peers.v1.Peers/Push")
                .header("content-type", "application/grpc")
                .header("te", "trailers")
                .body(())
                .expect("a request");
            let (answer, send) = client.send_request(request, false).expect("a stream");
            let answer = timeout(PATIENCE, answer).await;
            let answer = answer.expect("an answer in time").expect("an answer");
            (send, answer.into_body())
        });
        Self {
            runtime,
            send,
            recv,
            got: Vec::new(),
        }
    }

    /// Sends a message; a stream that has ended is seen when reading.
    pub(crate) fn push(&mut self, kind: Push) {
        let message = PushMessage { kind: Some(kind) };
        self.push_bytes(&message.encode_to_vec());
    }

    /// Sends any bytes as a message.
    pub(crate) fn push_bytes(&mut self, message: &[u8]) {
        let mut frame = vec![0];
        frame.extend_from_slice(&(message.len() as u32).to_be_bytes());
        frame.extend_from_slice(message);
        let _gone = self.send.send_data(frame.into(), false);
    }

    /// The next reply, heartbeats left out; `None` when the stream has ended.
    pub(crate) fn reply(&mut self) -> Option<Reply> {
        loop {
            if let Some(message) = self.message() {
                let kind = ReplyMessage::decode(message.as_slice())
                    .expect("a reply")
                    .kind;
                match kind {
                    Some(Reply::Heartbeat(_)) => {}
                    Some(kind) => return Some(kind),
                    None => panic!("an empty reply"),
                }
                continue;
            }
            let data = self
                .runtime
                .block_on(async { timeout(2 * PATIENCE, self.recv.data()).await })
                .expect("it neither replies nor hangs up");
            let data = data?.ok()?;
            let _gone = self.recv.flow_control().release_capacity(data.len());
            self.got.extend_from_slice(&data);
        }
    }

    fn message(&mut self) -> Option<Vec<u8>> {
        let length = self.got.get(1..5)?;
        let length = u32::from_be_bytes(length.try_into().expect("four")) as usize;
        if self.got.len() < 5 + length {
            return None;
        }
        let message = self.got[5..5 + length].to_vec();
        self.got.drain(..5 + length);
        Some(message)
    }

    /// Says who it is and reads the answers up to where it may push its journal of table 0.
    pub(crate) fn greet(&mut self) {
        self.push(Push::Hello(hello(1)));
        assert!(matches!(self.reply(), Some(Reply::Welcome(_))));
        loop {
            match self.reply() {
                Some(Reply::Start(start)) if start.table == 0 => return,
                Some(_) => {}
                None => panic!("hung up after the welcome"),
            }
        }
    }
}

/// A node that stores `gpc0` in table `t`, and nothing else.
pub(crate) fn hello(version: u32) -> Hello {
    Hello {
        version,
        cluster: "p".into(),
        node: "impostor".into(),
        lineage: LINEAGE,
        newcomer: true,
        mono_ms: 1000,
        wall_ms: 1_800_000_000_000,
        tables: vec![TableDef {
            name: "t".into(),
            key_type: KeyType::String as i32,
            key_len: 32,
            size: 1000,
            expire_ms: Some(3_600_000),
            columns: vec![ColumnDef {
                number: GPC0,
                period_ms: 0,
                name: "gpc0".into(),
                factor: 0,
            }],
            entries: 0,
        }],
        more: false,
    }
}

/// One row: `key` was counted `count` times in `gpc0` (below 128), as change number `number` (below 64) of its lineage.
pub(crate) fn row(key: &str, count: u8, number: u8) -> Batch {
    Batch {
        table: 0,
        mono_ms: 1000,
        source: Some(batch::Source::Journal(JournalSource {
            upto: u64::from(number),
            whole: true,
        })),
        rows: 1,
        key_width: key.len() as u32,
        keys: key.as_bytes().to_vec(),
        key_lengths: vec![],
        // Flags, version, age.
        heads: vec![0, 2 * number, 0],
        lineages: vec![LINEAGE],
        stamp_base: 0,
        values: vec![Values {
            number: GPC0,
            data: vec![count],
        }],
    }
}
