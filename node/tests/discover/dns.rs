//! A DNS server on loopback, over UDP and TCP, that says what it is told to say.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hickory_resolver::proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA, SRV};
use hickory_resolver::proto::rr::{Name, RData, Record};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Notify;
use tokio::time::timeout;

/// What a question is answered with.
#[derive(Clone, Debug)]
pub enum Reply {
    /// Addresses, or `TARGET PORT`.
    Records(Vec<String>),
    /// NXDOMAIN, as for everything that was not set.
    Nobody,
    /// SERVFAIL
    Failure,
    /// REFUSED
    Refused,
    /// Nothing at all.
    Silence,
}

impl Reply {
    pub fn records<'a>(list: impl IntoIterator<Item = &'a str>) -> Reply {
        Reply::Records(list.into_iter().map(str::to_owned).collect())
    }
}

/// Name and type.
type Question = (String, String);

#[derive(Default)]
struct Zone {
    replies: Mutex<HashMap<Question, Reply>>,
    asked: Mutex<HashMap<Question, usize>>,
    over_tcp: Mutex<usize>,
    news: Notify,
}

pub struct Dns {
    zone: Arc<Zone>,
    address: SocketAddr,
}

/// Longest answer over UDP (RFC 1035, section 4.2.1).
const UDP_MAX: usize = 512;
const PATIENCE: Duration = Duration::from_secs(20);

impl Dns {
    /// On one free port for both protocols; ends with the runtime.
    pub async fn start() -> Dns {
        let (tcp, udp) = loop {
            let tcp = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let address = tcp.local_addr().expect("its number");
            if let Ok(udp) = UdpSocket::bind(address).await {
                break (tcp, udp);
            }
        };
        let address = tcp.local_addr().expect("its number");
        let zone = Arc::new(Zone::default());
        tokio::spawn(serve_udp(udp, Arc::clone(&zone)));
        tokio::spawn(serve_tcp(tcp, Arc::clone(&zone)));
        Dns { zone, address }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on. What was counted by `answered` starts again.
    pub fn set(&self, name: &str, kind: &str, reply: Reply) {
        let question = (name.to_owned(), kind.to_owned());
        let mut replies = self.zone.replies.lock().expect("no panic");
        self.zone.asked.lock().expect("no panic").remove(&question);
        replies.insert(question, reply);
    }

    /// Waits until this was asked so many times since it was set.
    pub async fn answered(&self, name: &str, kind: &str, times: usize) {
        let question = (name.to_owned(), kind.to_owned());
        let enough = async {
            loop {
                let news = self.zone.news.notified();
                let asked = self
                    .zone
                    .asked
                    .lock()
                    .expect("no panic")
                    .get(&question)
                    .copied();
                if asked.unwrap_or_default() >= times {
                    return;
                }
                news.await;
            }
        };
        timeout(PATIENCE, enough).await.expect("questions in time");
    }

    /// Number of questions over TCP.
    pub fn over_tcp(&self) -> usize {
        *self.zone.over_tcp.lock().expect("no panic")
    }
}

impl Zone {
    fn answer(&self, question: &[u8]) -> Option<Message> {
        let asked = Message::from_vec(question).expect("a question");
        let query = asked.queries.first().expect("one question").clone();
        let name = query.name().to_ascii();
        let key = (
            name.trim_end_matches('.').to_ascii_lowercase(),
            query.query_type().to_string(),
        );
        let reply = self.replies.lock().expect("no panic").get(&key).cloned();
        *self.asked.lock().expect("no panic").entry(key).or_default() += 1;
        self.news.notify_waiters();
        let mut message = Message::new(asked.metadata.id, MessageType::Response, OpCode::Query);
        message.add_query(query.clone());
        match reply.unwrap_or(Reply::Nobody) {
            Reply::Silence => return None,
            Reply::Nobody => message.metadata.response_code = ResponseCode::NXDomain,
            Reply::Failure => message.metadata.response_code = ResponseCode::ServFail,
            Reply::Refused => message.metadata.response_code = ResponseCode::Refused,
            Reply::Records(list) => {
                for text in list {
                    message.add_answer(Record::from_rdata(query.name().clone(), 0, data(&text)));
                }
            }
        }
        Some(message)
    }
}

fn data(text: &str) -> RData {
    if let Ok(a) = text.parse() {
        return RData::A(A(a));
    }
    if let Ok(a) = text.parse() {
        return RData::AAAA(AAAA(a));
    }
    let (target, port) = text.split_once(' ').expect("target and port");
    let target = Name::from_ascii(format!("{target}.")).expect("a name");
    RData::SRV(SRV::new(0, 0, port.parse().expect("a port"), target))
}

async fn serve_udp(socket: UdpSocket, zone: Arc<Zone>) {
    let mut buffer = [0; 4096];
    while let Ok((n, from)) = socket.recv_from(&mut buffer).await {
        let Some(answer) = zone.answer(&buffer[..n]) else {
            continue;
        };
        let bytes = answer.to_vec().expect("it can be written");
        let bytes = if bytes.len() > UDP_MAX {
            let mut short = answer;
            short.metadata.truncation = true;
            short.answers.clear();
            short.to_vec().expect("it can be written")
        } else {
            bytes
        };
        // The client may have given up; that is its business.
        let _ = socket.send_to(&bytes, from).await;
    }
}

async fn serve_tcp(listener: TcpListener, zone: Arc<Zone>) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(connection(stream, Arc::clone(&zone)));
    }
}

async fn connection(mut stream: TcpStream, zone: Arc<Zone>) {
    while let Ok(n) = stream.read_u16().await {
        let mut question = vec![0; n.into()];
        if stream.read_exact(&mut question).await.is_err() {
            return;
        }
        *zone.over_tcp.lock().expect("no panic") += 1;
        let Some(answer) = zone.answer(&question) else {
            continue;
        };
        let bytes = answer.to_vec().expect("it can be written");
        let mut framed = (bytes.len() as u16).to_be_bytes().to_vec();
        framed.extend(bytes);
        if stream.write_all(&framed).await.is_err() {
            return;
        }
    }
}
