//! Highest rates seen, for the `Max…Rate` and `rate_max` columns. The main thread looks once per second; the rates are
//! over one second, so no peak that lasts is missed, and the request path pays nothing.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

use remora_core::world::World;

/// Peaks of the process, its proxies and servers.
#[derive(Debug, Default)]
pub struct Peaks {
    conn: AtomicU32,
    sess: AtomicU32,
    proxies: Vec<ProxyPeaks>,
}

#[derive(Debug, Default)]
struct ProxyPeaks {
    conn: AtomicU32,
    front_sess: AtomicU32,
    req: AtomicU32,
    back_sess: AtomicU32,
    servers: Vec<AtomicU32>,
}

/// Peaks of one proxy or server, as numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct ProxyRates {
    pub conn: u32,
    pub front_sess: u32,
    pub req: u32,
    pub back_sess: u32,
}

impl Peaks {
    /// All zero, for the proxies and servers of `world`.
    pub fn new(world: &World) -> Peaks {
        Peaks {
            proxies: world
                .proxies
                .iter()
                .map(|p| ProxyPeaks {
                    servers: p.servers.iter().map(|_| AtomicU32::new(0)).collect(),
                    ..ProxyPeaks::default()
                })
                .collect(),
            ..Peaks::default()
        }
    }

    /// Raises what is exceeded now.
    pub fn look(&self, world: &World, now_ms: u64) {
        let process = &world.process;
        self.conn.fetch_max(process.conn_rate.rate(now_ms), Relaxed);
        self.sess.fetch_max(process.sess_rate.rate(now_ms), Relaxed);
        for (p, peaks) in world.proxies.iter().zip(&self.proxies) {
            peaks
                .conn
                .fetch_max(p.front.conn_rate.rate(now_ms), Relaxed);
            peaks
                .front_sess
                .fetch_max(p.front.sess_rate.rate(now_ms), Relaxed);
            peaks.req.fetch_max(p.front.req_rate.rate(now_ms), Relaxed);
            peaks
                .back_sess
                .fetch_max(p.back.sess_rate.rate(now_ms), Relaxed);
            for (s, peak) in p.servers.iter().zip(&peaks.servers) {
                peak.fetch_max(s.stats.sess_rate.rate(now_ms), Relaxed);
            }
        }
    }

    /// Forgets all peaks (`clear counters`).
    pub fn clear(&self) {
        self.conn.store(0, Relaxed);
        self.sess.store(0, Relaxed);
        for p in &self.proxies {
            for peak in [&p.conn, &p.front_sess, &p.req, &p.back_sess]
                .into_iter()
                .chain(&p.servers)
            {
                peak.store(0, Relaxed);
            }
        }
    }

    /// Connections per second of the process.
    pub fn conn_rate(&self) -> u32 {
        self.conn.load(Relaxed)
    }

    /// Sessions per second of the process.
    pub fn sess_rate(&self) -> u32 {
        self.sess.load(Relaxed)
    }

    /// Those of the proxy at this position.
    pub fn proxy(&self, index: usize) -> ProxyRates {
        self.proxies
            .get(index)
            .map_or_else(ProxyRates::default, |p| ProxyRates {
                conn: p.conn.load(Relaxed),
                front_sess: p.front_sess.load(Relaxed),
                req: p.req.load(Relaxed),
                back_sess: p.back_sess.load(Relaxed),
            })
    }

    /// Sessions per second of a server.
    pub fn server(&self, proxy: usize, server: usize) -> u32 {
        self.proxies
            .get(proxy)
            .and_then(|p| p.servers.get(server))
            .map_or(0, |peak| peak.load(Relaxed))
    }
}
