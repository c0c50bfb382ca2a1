//! Tracking slots of a connection and of a request, and the events counted through them. (reference: stick-tables 6)

use super::cx::{ConnState, Cx, StreamState};
use crate::table::{DataType, EntryRef, Key, TableId};
use crate::world::World;
use smallvec::SmallVec;
use std::cell::Cell;

/// One tracked entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tracker {
    #[allow(missing_docs)]
    pub table: TableId,
    #[allow(missing_docs)]
    pub entry: EntryRef,
}

/// The slots of one layer (connection, or request). Must be emptied with [`Slots::release`].
#[derive(Debug, Default)]
pub struct Slots {
    slots: SmallVec<[Cell<Option<Tracker>>; 3]>,
}

impl Slots {
    /// Empty slots, `n` = `tune.stick-counters`.
    pub fn new(n: usize) -> Slots {
        Slots {
            slots: (0..n).map(|_| Cell::new(None)).collect(),
        }
    }

    /// What a slot tracks.
    pub fn get(&self, slot: u8) -> Option<Tracker> {
        self.slots.get(usize::from(slot)).and_then(Cell::get)
    }

    /// Ends all tracking of this layer.
    pub fn release(&self, world: &World, now_ms: u64) {
        for tracker in self.slots.iter().filter_map(Cell::take) {
            if let Some(table) = world.table(tracker.table) {
                table.untrack(tracker.entry, now_ms);
            }
        }
    }

    /// Slots in use, as bits.
    pub(super) fn in_use(&self) -> u128 {
        self.slots
            .iter()
            .enumerate()
            .filter(|(_, slot)| slot.get().is_some())
            .fold(0, |bits, (i, _)| bits | 1 << (i & 127))
    }

    /// What the slots in `which` (bits) track.
    fn some_of(&self, which: u128) -> impl Iterator<Item = Tracker> {
        self.slots
            .iter()
            .enumerate()
            .filter(move |(i, _)| which & (1 << (i & 127)) != 0)
            .filter_map(|(_, slot)| slot.get())
    }
}

/// What a slot number means here: the request's slot first, then the connection's.
pub(super) fn find(cx: &Cx<'_>, slot: u8) -> Option<Tracker> {
    cx.stream
        .and_then(|stream| stream.slots.get(slot))
        .or_else(|| cx.conn.slots.get(slot))
}

/// Starts tracking `key`, in the request's slot or, without a stream, the connection's. The caller made sure that the
/// slot is free ([`find`]). Counts one event of `also`, too. `None`: there is no such slot, or a full table refused the key
/// (which it counts).
pub(super) fn start(
    cx: &Cx<'_>,
    slot: u8,
    id: TableId,
    key: &Key,
    also: Option<DataType>,
) -> Option<Tracker> {
    let (layer, counted) = match cx.stream {
        Some(stream) => (&stream.slots, &stream.counted),
        None => (&cx.conn.slots, &cx.conn.counted),
    };
    let place = layer.slots.get(usize::from(slot))?;
    let table = cx.world.table(id)?;
    let entry = table.track_and_count(key, also, cx.now.mono_ms).ok()?;
    let tracker = Tracker { table: id, entry };
    counted.set(counted.get() | table.counts());
    place.set(Some(tracker));
    Some(tracker)
}

/// Counts `n` events of a counter and its rate on one tracked entry; refreshes it if either is stored.
pub(super) fn count(world: &World, tracker: Tracker, what: DataType, n: u64, now_ms: u64) {
    let Some(table) = world.table(tracker.table) else {
        return;
    };
    // Most tables store few types: no lock for those that do not store this one.
    if table.counts() & what.bit() == 0 {
        return;
    }
    table.write(tracker.entry, |mut entry| {
        entry.inc(what, 0, n, now_ms);
        entry.touch(now_ms);
    });
}

fn count_all(
    world: &World,
    conn: &ConnState,
    stream: Option<&StreamState>,
    what: DataType,
    n: u64,
    now_ms: u64,
) {
    if conn.counted.get() & what.bit() != 0 {
        for tracker in conn.slots.some_of(u128::MAX) {
            count(world, tracker, what, n, now_ms);
        }
    }
    if let Some(stream) = stream {
        count_some(world, stream, u128::MAX, what, now_ms, n);
    }
}

fn count_some(
    world: &World,
    stream: &StreamState,
    which: u128,
    what: DataType,
    now_ms: u64,
    n: u64,
) {
    if stream.counted.get() & what.bit() != 0 {
        for tracker in stream.slots.some_of(which) {
            count(world, tracker, what, n, now_ms);
        }
    }
}

/// `http_req_cnt/rate` on some of the request's slots only.
pub(super) fn count_http_request_of(world: &World, stream: &StreamState, which: u128, now_ms: u64) {
    count_some(world, stream, which, DataType::HttpReqCnt, now_ms, 1);
}

/// `sess_cnt`, `sess_rate`: the connection became a session (after `tcp-request session` accepted). Connection slots only.
pub fn count_session(world: &World, conn: &ConnState, now_ms: u64) {
    count_all(world, conn, None, DataType::SessCnt, 1, now_ms);
}

/// `http_req_cnt/rate` on connection slots and, if there is a stream, its slots. [`super::proxy::request_phase`] calls it;
/// the data plane does only for requests that never reach the rules (malformed, 408, 501), without a stream.
pub fn count_http_request(
    world: &World,
    conn: &ConnState,
    stream: Option<&StreamState>,
    now_ms: u64,
) {
    count_all(world, conn, stream, DataType::HttpReqCnt, 1, now_ms);
}

/// `http_err_cnt/rate`: a client's fault (400). Deny and tarpit are counted by [`super::proxy::request_phase`], response
/// statuses by [`super::proxy::response_phase`].
pub fn count_http_error(
    world: &World,
    conn: &ConnState,
    stream: Option<&StreamState>,
    now_ms: u64,
) {
    count_all(world, conn, stream, DataType::HttpErrCnt, 1, now_ms);
}

/// `http_fail_cnt/rate`: a server's fault that gave no response head (502, 504).
pub fn count_http_failure(
    world: &World,
    conn: &ConnState,
    stream: Option<&StreamState>,
    now_ms: u64,
) {
    count_all(world, conn, stream, DataType::HttpFailCnt, 1, now_ms);
}

/// `bytes_in_cnt/rate`: `n` bytes came from the client. Call it at least once per second or MiB while data flows.
pub fn count_bytes_in(
    world: &World,
    conn: &ConnState,
    stream: Option<&StreamState>,
    n: u64,
    now_ms: u64,
) {
    count_all(world, conn, stream, DataType::BytesInCnt, n, now_ms);
}

/// `bytes_out_cnt/rate`: `n` bytes came from the server.
pub fn count_bytes_out(
    world: &World,
    conn: &ConnState,
    stream: Option<&StreamState>,
    n: u64,
    now_ms: u64,
) {
    count_all(world, conn, stream, DataType::BytesOutCnt, n, now_ms);
}
