//! The algorithms.

use std::cell::Cell;
use std::cmp::Ordering::Less;
use std::net::IpAddr;
use std::sync::atomic::Ordering::Relaxed;

use super::Algorithm;
use super::rotation::{Rotation, Turn};
use super::slots::has_slot;
use crate::world::ServerState;

/// One backend's state of balancing.
#[derive(Debug)]
pub struct Balancer {
    algorithm: Algorithm,
    allbackups: bool,
    rotation: Rotation,
}

/// Who asks for a server.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// The client's address; `None` makes `source` fall back to round robin.
    pub src: Option<IpAddr>,
    /// A server that just failed for this request.
    pub avoid: Option<u16>,
    /// State of the thread's random generator.
    pub rng: &'a Cell<u64>,
}

/// What was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// This server (index in the backend). If it is full (possible with `source`), the request waits in its queue.
    Server(u16),
    /// There are servers, but they are full: the request waits in the backend's queue for whichever is free first.
    Full,
    /// No server may take traffic.
    None,
}

/// The servers that count for this choice.
#[derive(Clone, Copy)]
enum Group {
    Active,
    Backups,
    /// One backup server.
    Only(usize),
}

impl Balancer {
    /// For a backend with so many servers.
    pub fn new(algorithm: Algorithm, allbackups: bool, servers: usize) -> Balancer {
        Balancer {
            algorithm,
            allbackups,
            rotation: Rotation::new(servers),
        }
    }

    /// Chooses a server. `servers` must be the backend's, in the same order every time.
    pub fn pick(&self, servers: &[ServerState], ask: &Ask<'_>) -> Choice {
        let Some(group) = self.group(servers) else {
            return Choice::None;
        };
        let avoid = ask.avoid.map(usize::from).filter(|&avoided| {
            // with nobody else there, the server that failed is tried again
            members(servers, group).any(|(i, _)| i != avoided)
        });
        let chosen = match (&self.algorithm, ask.src) {
            (Algorithm::RoundRobin, _) | (Algorithm::Source, None) => {
                self.in_turn(servers, group, avoid, |_| (0, 1))
            }
            (Algorithm::LeastConn, _) => self.in_turn(servers, group, avoid, load),
            (Algorithm::Source, Some(src)) => by_hash(servers, group, avoid, address_hash(src)),
            (Algorithm::Random(draws), _) => random(servers, group, avoid, *draws, ask.rng),
        };
        chosen.map_or(Choice::Full, |i| {
            u16::try_from(i).map_or(Choice::None, Choice::Server)
        })
    }

    /// Whether a request that waits for any server may go to this one: it is usable and, if it is a backup, its turn.
    pub fn may_take(&self, servers: &[ServerState], server: u16) -> bool {
        let server = usize::from(server);
        self.group(servers)
            .is_some_and(|group| members(servers, group).any(|(i, _)| i == server))
    }

    fn group(&self, servers: &[ServerState]) -> Option<Group> {
        if servers.iter().any(|s| !s.backup && s.usable()) {
            return Some(Group::Active);
        }
        let first = servers.iter().position(|s| s.backup && s.usable())?;
        Some(if self.allbackups {
            Group::Backups
        } else {
            Group::Only(first)
        })
    }

    /// The server with the smallest load; among equals, the one whose turn it is. The server to avoid only if all others
    /// are full.
    fn in_turn(
        &self,
        servers: &[ServerState],
        group: Group,
        avoid: Option<usize>,
        load: impl Fn(&ServerState) -> (u64, u64) + Copy,
    ) -> Option<usize> {
        let others = self.first_in_turn(servers, group, avoid, load);
        others.or_else(|| avoid.and_then(|_| self.first_in_turn(servers, group, None, load)))
    }

    fn first_in_turn(
        &self,
        servers: &[ServerState],
        group: Group,
        avoid: Option<usize>,
        load: impl Fn(&ServerState) -> (u64, u64),
    ) -> Option<usize> {
        // Every failed take means that another thread got on, so this ends; the bound is for peace of mind.
        let mut last = None;
        for _ in 0..ATTEMPTS_MAX {
            let clock = self.rotation.clock();
            let mut best: Option<(usize, (u64, u64), Turn)> = None;
            for (i, server) in
                members(servers, group).filter(|(i, s)| Some(*i) != avoid && has_slot(s))
            {
                let Some(turn) = self.rotation.turn(i, weight(server), clock) else {
                    continue;
                };
                let this = load(server);
                let better = best.as_ref().is_none_or(|(_, least, first)| {
                    // this.0 / this.1 against least.0 / least.1
                    let order = (this.0 * least.1).cmp(&(least.0 * this.1));
                    order.then(turn.wait.cmp(&first.wait)) == Less
                });
                if better {
                    best = Some((i, this, turn));
                }
            }
            let (i, _, turn) = best?;
            if self.rotation.take(&turn) {
                return Some(i);
            }
            last = Some(i);
        }
        last
    }
}

/// The usable servers of a group with their indexes.
fn members(
    servers: &[ServerState],
    group: Group,
) -> impl Iterator<Item = (usize, &ServerState)> + Clone {
    servers.iter().enumerate().filter(move |(i, s)| {
        s.usable()
            && match group {
                Group::Active => !s.backup,
                Group::Backups => s.backup,
                Group::Only(only) => *i == only,
            }
    })
}

fn weight(server: &ServerState) -> u32 {
    server.stats.weight.load(Relaxed).max(1)
}

/// Load as a fraction: what it would be with one request more, over the weight; idle servers are all equal.
fn load(server: &ServerState) -> (u64, u64) {
    let busy =
        u64::from(server.stats.scur.load(Relaxed)) + u64::from(server.stats.qcur.load(Relaxed));
    (
        if busy == 0 { 0 } else { busy + 1 },
        u64::from(weight(server)),
    )
}

/// The server at place `hash mod sum of weights`, weights reduced to lowest terms: with equal weights each server has
/// one place, in order of declaration, as in HAProxy's map.
fn by_hash(
    servers: &[ServerState],
    group: Group,
    avoid: Option<usize>,
    hash: u32,
) -> Option<usize> {
    let members = members(servers, group).filter(|(i, _)| Some(*i) != avoid);
    let divisor = members
        .clone()
        .fold(0, |d, (_, s)| gcd(d, weight(s)))
        .max(1);
    at_place(members, divisor, |places| u64::from(hash) % places)
}

fn random(
    servers: &[ServerState],
    group: Group,
    avoid: Option<usize>,
    draws: u32,
    rng: &Cell<u64>,
) -> Option<usize> {
    let mut best: Option<usize> = None;
    for _ in 0..draws.clamp(1, DRAWS_MAX) {
        let members = members(servers, group).filter(|(i, _)| Some(*i) != avoid);
        let drawn = at_place(members, 1, |places| draw(rng) % places)?;
        let heavier = |a: usize, b: usize| match (servers.get(a), servers.get(b)) {
            (Some(a), Some(b)) => {
                let (a_busy, b_busy) = (a.stats.scur.load(Relaxed), b.stats.scur.load(Relaxed));
                u64::from(a_busy) * u64::from(weight(b)) > u64::from(b_busy) * u64::from(weight(a))
            }
            _ => false,
        };
        best = match best {
            Some(best) if heavier(drawn, best) => Some(best),
            _ => Some(drawn),
        };
    }
    best.filter(|i| servers.get(*i).is_some_and(has_slot))
}

/// The member that owns a place, each member owning `weight / divisor` places in order.
fn at_place<'s>(
    members: impl Iterator<Item = (usize, &'s ServerState)> + Clone,
    divisor: u32,
    place: impl FnOnce(u64) -> u64,
) -> Option<usize> {
    let places: u64 = members
        .clone()
        .map(|(_, s)| u64::from(weight(s) / divisor))
        .sum();
    if places == 0 {
        return None;
    }
    let mut left = place(places);
    let mut last = None;
    for (i, server) in members {
        last = Some(i);
        let own = u64::from(weight(server) / divisor);
        if left < own {
            break;
        }
        left -= own; // weights may change while we look: the last member catches what is left over
    }
    last
}

/// Words of the address, xored: for IPv4 the address itself. The same as HAProxy's, so that clients stay with their
/// servers when one proxy replaces the other.
fn address_hash(src: IpAddr) -> u32 {
    match src {
        IpAddr::V4(v4) => v4.to_bits(),
        IpAddr::V6(v6) => {
            let bits = v6.to_bits();
            (0..4).fold(0, |hash, word| hash ^ (bits >> (32 * word)) as u32)
        }
    }
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// SplitMix64: any state is a good state. The high half is the better one.
fn draw(rng: &Cell<u64>) -> u64 {
    let state = rng.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
    rng.set(state);
    let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)) >> 32
}

/// Tries to take a turn before one is chosen without taking it.
const ATTEMPTS_MAX: u32 = 256;
/// Draws of `random` beyond this add nothing but time.
const DRAWS_MAX: u32 = 64;
