//! What a hub keeps in mind, looked at from inside.

use std::sync::Arc;

use super::hub::{Hub, HubConfig};
use super::limits::{KEPT_KEYS_MAX, WANT_BYTES, WANT_KEYS, WANTS_OPEN};
use super::messages::Reply;
use super::receive::{InSession, InTable, Phase};
use super::replies::shown;
use super::store::{Store, Stores};
use super::wants::Wanted;
use crate::table::{
    DataType, Key, KeyType, Lineage, Lineages, Stored, Table, TableId, TableSpec, Tag,
};

const NOW: u64 = 100_000;
const THERE: Lineage = Lineage(2);
const AWAY: Lineage = Lineage(3);

struct One(Table);

impl Stores for One {
    fn store(&self, table: TableId) -> Option<&dyn Store> {
        (table.0 == 0).then_some(&self.0 as &dyn Store)
    }
    fn write_tags(&self, _: TableId, _: &[(Key, Vec<Tag>)], _: u64) {}
}

fn hub() -> Hub {
    let lineages = Arc::new(Lineages::new(Lineage(1)));
    let spec = TableSpec {
        name: "t".into(),
        key_type: KeyType::Integer,
        key_len: 4,
        size: 100,
        expire_ms: None,
        nopurge: false,
        store: vec![Stored {
            data_type: DataType::Gpc0,
            elements: 1,
            period_ms: 0,
        }],
        brates_factor: 1,
        write_to: None,
        recv_only: false,
        srvkey_addr: false,
        peers: Some(0),
    };
    let table = Table::new_replicated(spec, 5, Arc::clone(&lineages));
    let config = HubConfig {
        cluster: "c".into(),
        node: "a".into(),
        lineages,
        newcomer: false,
        discovers: false,
        learn_timeout_ms: 0,
        sole: true,
        seed: 3,
    };
    Hub::new(config, Arc::new(One(table)), &[TableId(0)], NOW)
}

/// A session of which all is agreed.
fn session() -> InSession {
    let mut session = InSession::new("b:1".into(), NOW);
    session.phase = Phase::Up;
    session.lineage = THERE;
    session.theirs = vec![Some(0)];
    session.tables = vec![InTable {
        own: Some(0),
        ..InTable::default()
    }];
    session
}

fn questions(session: &mut InSession) -> Vec<usize> {
    let mut sizes = Vec::new();
    while let Some(reply) = session.replies.pop_front(NOW) {
        if let Reply::Want { keys, .. } = reply {
            sizes.push(keys.len());
        }
    }
    sizes
}

/// One question fits a message, whatever the keys are; a key that does not is asked about alone.
#[test]
fn questions_are_bounded_in_keys_and_bytes() {
    for (length, count, expected) in [
        (4, 150, vec![WANT_KEYS, WANT_KEYS, 150 - 2 * WANT_KEYS]),
        (WANT_BYTES / 3, 7, vec![3, 3, 1]),
        (WANT_BYTES / 2 + 1, 3, vec![1, 1, 1]),
        (2 * WANT_BYTES, 2, vec![1, 1]),
        (2 * WANT_BYTES, WANTS_OPEN + 5, vec![1; WANTS_OPEN]),
    ] {
        let mut session = session();
        let key = Key::from_stored(&vec![7; length]);
        let keys = std::iter::repeat_n(key, count).map(Wanted::of_anyone);
        assert_eq!(session.want(0, keys), 0);
        session.ask(0);
        assert_eq!(questions(&mut session), expected, "{count} of {length}");
    }
}

/// Who is away has a share of the room for questions that wait; who is there is asked at once all the same.
#[test]
fn the_absent_do_not_use_up_the_room_for_questions() {
    let mut hub = hub();
    for lineage in [THERE, AWAY] {
        hub.greeted(lineage, "", NOW).unwrap();
    }
    let id = hub.new_session();
    hub.ins.insert(id, session());
    let keys: Vec<Key> = (0..KEPT_KEYS_MAX as u32 / 2)
        .map(|n| Key::from_stored(&n.to_be_bytes()))
        .collect();
    hub.want_of_all(0, &keys, NOW);
    let share = KEPT_KEYS_MAX / 4;
    assert_eq!(hub.tables[0].wants.len(), share);
    assert!(hub.tables[0].wants.iter().all(|(of, _)| *of == AWAY));
    assert_eq!(hub.counters.wants_dropped, (keys.len() - share) as u64);
    let session = hub.ins.get_mut(&id).unwrap();
    assert_eq!(questions(session), [WANT_KEYS; WANTS_OPEN]);
    let waiting = session.tables[0].wants.len();
    assert_eq!(waiting + WANTS_OPEN * WANT_KEYS, keys.len());
}

/// What came and was not taken ends what is known, until a walk that shows it again has ended: not only begun, and also for
/// a process that takes over.
#[test]
fn what_was_not_taken_is_not_known() {
    let mut hub = hub();
    let shared = &mut hub.tables[0];
    shared.follow(THERE, 5, true);
    shared.left(THERE, 8);
    shared.follow(THERE, 20, true);
    let known = shared.known(THERE);
    assert_eq!((known.all, known.resume, known.resumed_at()), (7, 20, 7));
    // Not all of it was taken this time either.
    shared.was_shown(THERE, &[(AWAY, 3), (THERE, 12)]);
    shared.follow(THERE, 30, true);
    assert_eq!(shared.known(THERE).all, 11);
    shared.was_shown(THERE, &[]);
    shared.follow(THERE, 40, true);
    let known = shared.known(THERE);
    assert_eq!((known.all, known.resumed_at()), (40, 40));
}

/// While a journal is read again, trackers may be missing: who is taught meanwhile must not take what is held for all.
#[test]
fn what_is_read_again_is_vouched_for_as_far_as_it_was_read() {
    let mut hub = hub();
    let shared = &mut hub.tables[0];
    shared.follow(THERE, 40, true);
    shared.read_again(THERE);
    assert_eq!(shared.known(THERE).vouched(true), 0);
    shared.follow(THERE, 30, false);
    assert_eq!(shared.known(THERE).vouched(true), 30);
    // Nobody counts trackers of the dead.
    assert_eq!(shared.known(THERE).vouched(false), 40);
    let before = shared.known(THERE).revision;
    shared.follow(THERE, 41, true);
    let known = shared.known(THERE);
    assert_eq!((known.vouched(true), known.all), (41, 41));
    assert_ne!(known.revision, before, "who was shown less looks again");
}

/// What a peer says is shown to people: it cannot forge lines, or fill the log.
#[test]
fn texts_of_peers_are_fit_to_be_shown() {
    assert_eq!(shown("only b stores gpc0"), "only b stores gpc0");
    assert_eq!(shown("a\nb\u{1b}[2Jc\0"), "ab[2Jc");
    assert_eq!(shown(&"x".repeat(5_000)).len(), 1_024);
}
