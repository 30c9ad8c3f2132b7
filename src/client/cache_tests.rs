//! The cache, against revisions that it must not give.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn data(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn cache_at(view: u64) -> Cache {
    let mut cache = Cache::new(1 << 20);
    cache.missed(Tid(view), Some(&[]));
    cache
}

fn tid_at(cache: &mut Cache, oid: u64, at: u64) -> Option<u64> {
    cache.at(Oid(oid), Tid(at)).map(|found| found.tid.0)
}

#[test]
fn a_revision_is_valid_until_it_is_replaced() {
    let mut cache = cache_at(10);
    cache.keep(Oid(1), Tid(7), None, &data("seven"));
    assert_eq!(tid_at(&mut cache, 1, 10), Some(7));
    assert_eq!(tid_at(&mut cache, 1, 6), None);
    assert!(cache.invalidate(Tid(12), &[Oid(1), Oid(2)]));
    assert_eq!(tid_at(&mut cache, 1, 10), Some(7));
    assert_eq!(tid_at(&mut cache, 1, 11), Some(7));
    assert_eq!(tid_at(&mut cache, 1, 12), None);
    cache.keep(Oid(1), Tid(12), None, &data("twelve"));
    assert_eq!(tid_at(&mut cache, 1, 11), Some(7));
    assert_eq!(cache.at(Oid(1), Tid(12)), Some(Loaded { data: data("twelve"), tid: Tid(12), end: None }));
}

#[test]
fn nothing_is_said_beyond_the_view() {
    let mut cache = cache_at(10);
    cache.keep(Oid(1), Tid(7), None, &data("seven"));
    assert_eq!(tid_at(&mut cache, 1, 11), None);
    cache.keep(Oid(2), Tid(11), None, &data("from the future"));
    assert!(cache.invalidate(Tid(11), &[]));
    assert_eq!(tid_at(&mut cache, 2, 11), None);
}

#[test]
fn old_news_are_no_news() {
    let mut cache = cache_at(10);
    cache.keep(Oid(1), Tid(7), None, &data("seven"));
    assert!(!cache.invalidate(Tid(10), &[Oid(1)]));
    assert_eq!(tid_at(&mut cache, 1, 10), Some(7));
}

#[test]
fn what_was_missed_is_dropped_and_nothing_else() {
    let mut cache = cache_at(10);
    for oid in 1..=3 {
        cache.keep(Oid(oid), Tid(7), None, &data("seven"));
    }
    cache.keep(Oid(2), Tid(5), Some(Tid(7)), &data("five"));
    cache.missed(Tid(20), Some(&[Oid(2), Oid(9)]));
    assert_eq!(tid_at(&mut cache, 1, 20), Some(7));
    assert_eq!(tid_at(&mut cache, 2, 20), None);
    assert_eq!(tid_at(&mut cache, 2, 10), None);
    assert_eq!(tid_at(&mut cache, 2, 6), Some(5));
    assert_eq!(tid_at(&mut cache, 3, 20), Some(7));
    cache.missed(Tid(30), None);
    assert_eq!(tid_at(&mut cache, 1, 30), None);
    assert_eq!((cache.bytes(), cache.view()), (0, Tid(30)));
}

#[test]
fn it_takes_no_more_than_it_was_given_and_drops_what_was_not_used() {
    let mut cache = Cache::new(10 * (100 + ENTRY_COST));
    cache.missed(Tid(10), Some(&[]));
    let hundred = Bytes::from(vec![0; 100]);
    for oid in 0..10 {
        cache.keep(Oid(oid), Tid(7), None, &hundred);
    }
    assert_eq!(tid_at(&mut cache, 0, 10), Some(7));
    cache.keep(Oid(10), Tid(7), None, &hundred);
    assert_eq!(tid_at(&mut cache, 0, 10), Some(7));
    assert_eq!(tid_at(&mut cache, 1, 10), None);
    assert!(cache.bytes() <= cache.capacity);
    cache.keep(Oid(11), Tid(7), None, &Bytes::from(vec![0; 100_000]));
    assert_eq!(tid_at(&mut cache, 11, 10), None);
    assert_eq!(tid_at(&mut cache, 0, 10), Some(7));
}

/// An event in the life of a client.
#[derive(Clone, Debug)]
enum Event {
    /// The next transaction changes these, and the client is told.
    Told(Vec<u64>),
    /// The next transaction changes these while the client is not connected.
    Untold(Vec<u64>),
    /// The client connects again and is told which objects have changed.
    Back,
    /// The client loads an object as it was so many transactions ago.
    Load(u64, u64),
}

fn event() -> impl Strategy<Value = Event> {
    let oids = || prop::collection::vec(0..4u64, 1..3);
    prop_oneof![
        oids().prop_map(Event::Told),
        oids().prop_map(Event::Untold),
        Just(Event::Back),
        (0..4u64, 0..6u64).prop_map(|(oid, ago)| Event::Load(oid, ago)),
    ]
}

proptest! {
    /// After any events, the cache answers as the server would.
    #[test]
    fn it_never_says_what_is_not_so(events in prop::collection::vec(event(), 1..80), room in 1..8usize) {
        let mut cache = Cache::new(room * (8 + ENTRY_COST));
        cache.missed(Tid(1), Some(&[]));
        // Per object, the tids that wrote it.
        let mut server: BTreeMap<u64, Vec<u64>> = (0..4).map(|oid| (oid, vec![1])).collect();
        let (mut last, mut away) = (1, false);
        for event in events {
            match event {
                Event::Told(oids) | Event::Untold(oids) if away => {
                    last += 1;
                    oids.iter().for_each(|oid| server.get_mut(oid).unwrap().push(last));
                }
                Event::Told(oids) => {
                    last += 1;
                    oids.iter().for_each(|oid| server.get_mut(oid).unwrap().push(last));
                    prop_assert!(cache.invalidate(Tid(last), &oids.into_iter().map(Oid).collect::<Vec<_>>()));
                }
                Event::Untold(oids) => {
                    last += 1;
                    away = true;
                    oids.iter().for_each(|oid| server.get_mut(oid).unwrap().push(last));
                }
                Event::Back => {
                    let view = cache.view().0;
                    let news = server.iter().filter(|(_, tids)| tids.iter().any(|tid| *tid > view));
                    let changed: Vec<Oid> = news.map(|(oid, _)| Oid(*oid)).collect();
                    cache.missed(Tid(last), Some(&changed));
                    away = false;
                }
                Event::Load(oid, ago) => {
                    let at = cache.view().0.saturating_sub(ago).max(1);
                    let tids = &server[&oid];
                    let tid = *tids.iter().rev().find(|tid| **tid <= at).unwrap();
                    if let Some(said) = cache.at(Oid(oid), Tid(at)) {
                        prop_assert_eq!(said.tid, Tid(tid));
                        prop_assert_eq!(&said.data[..], &tid.to_be_bytes()[..]);
                    } else if !away {
                        let end = tids.iter().find(|other| **other > tid).map(|end| Tid(*end));
                        cache.keep(Oid(oid), Tid(tid), end, &Bytes::copy_from_slice(&tid.to_be_bytes()));
                    }
                }
            }
            prop_assert!(cache.bytes() <= cache.capacity);
        }
    }
}
