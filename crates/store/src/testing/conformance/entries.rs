//! Promises about entries: versions, metadata, preconditions, listings.

use std::collections::BTreeSet;

use bytes::Bytes;
use zimcache_types::{Code, EntryKey, EntryKind};

use super::{SIZES, Stores, action, both, checks, key, pattern, refused, room};
use crate::{ByteRange, EntryInfo, EntryMeta, Precondition};

checks!(
    values_of_every_size_come_back_as_they_were,
    the_newest_put_wins_and_versions_differ,
    nothing_changes_before_the_commit,
    a_dropped_put_leaves_nothing,
    a_reader_keeps_the_version_it_opened,
    ranges_of_values_give_exactly_their_bytes,
    an_absent_precondition_lets_the_first_put_win,
    of_two_puts_that_want_absence_one_wins,
    metadata_is_echoed,
    metadata_over_the_limit_is_refused,
    values_over_the_limit_are_refused,
    a_deleted_entry_is_gone_and_can_be_put_again,
    keys_are_apart_by_room_kind_and_text,
    listings_are_ordered_and_cut_as_asked,
    listings_tell_what_get_tells,
    a_purge_forgets_entries_of_one_room_only,
);

async fn values_of_every_size_come_back_as_they_were(stores: &Stores) {
    for size in SIZES {
        let (key, body) = (action(&format!("size-{size}")), pattern(40, size));
        for chunk in [65_521, usize::MAX] {
            let meta = EntryMeta::default();
            let put = stores.put_entry(&key, &body, chunk, meta, Precondition::None, None);
            put.await.unwrap();
        }
    }
    for size in SIZES {
        let key = action(&format!("size-{size}"));
        let entry = stores
            .entries
            .get(&key, ByteRange::Full)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(entry.value.total_bytes(), size as u64);
        let value = entry.value.read_all(u64::MAX).await.unwrap();
        assert!(
            value == pattern(40, size),
            "a value of {size} bytes differs"
        );
    }
}

async fn the_newest_put_wins_and_versions_differ(stores: &Stores) {
    let key = action("key");
    assert_eq!(stores.value(&key, ByteRange::Full).await.unwrap(), None);
    let mut versions = BTreeSet::new();
    for (round, size) in [5, 100_000, 0, (2 << 20) + 1, 5, 5].into_iter().enumerate() {
        let body = pattern(round as u64, size);
        let version = stores.set(&key, &body).await;
        assert!(
            versions.insert(version),
            "version {version} was used before"
        );
        let entry = stores
            .entries
            .get(&key, ByteRange::Full)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(entry.version, version);
        assert!(entry.value.read_all(u64::MAX).await.unwrap() == body);
    }
    let again = stores.set(&key, &pattern(5, 5)).await;
    assert!(versions.insert(again), "the same bytes are a new version");
}

async fn nothing_changes_before_the_commit(stores: &Stores) {
    for (name, size) in [("small", 10), ("large", 3 << 20)] {
        let (key, old) = (action(name), pattern(41, 10));
        stores.set(&key, &old).await;
        let meta = EntryMeta::default();
        let writer = stores
            .entries
            .put(&key, meta, Precondition::None, None)
            .await;
        let mut writer = writer.unwrap();
        writer.write(pattern(42, size)).await.unwrap();
        assert_eq!(
            stores.value(&key, ByteRange::Full).await.unwrap(),
            Some(old)
        );
        writer.commit().await.unwrap();
        let value = stores.value(&key, ByteRange::Full).await.unwrap();
        assert!(value == Some(pattern(42, size)));
    }
}

async fn a_dropped_put_leaves_nothing(stores: &Stores) {
    for (name, size) in [("small", 10), ("large", 3 << 20)] {
        let key = action(name);
        let meta = EntryMeta::default();
        let writer = stores
            .entries
            .put(&key, meta, Precondition::None, None)
            .await;
        let mut writer = writer.unwrap();
        writer.write(pattern(43, size)).await.unwrap();
        drop(writer);
        assert_eq!(stores.value(&key, ByteRange::Full).await.unwrap(), None);
    }
}

async fn a_reader_keeps_the_version_it_opened(stores: &Stores) {
    for (name, size) in [("small", 100), ("middle", 100_000), ("large", 3 << 20)] {
        let (key, old) = (action(name), pattern(44, size));
        stores.set(&key, &old).await;
        let mut opened = stores
            .entries
            .get(&key, ByteRange::Full)
            .await
            .unwrap()
            .unwrap();
        let first = opened.value.next_chunk().await.unwrap().unwrap();
        let untouched = stores
            .entries
            .get(&key, ByteRange::Full)
            .await
            .unwrap()
            .unwrap();
        stores.set(&key, &pattern(45, size)).await;
        assert!(stores.entries.delete(&key).await.unwrap());
        let rest = opened.value.read_all(u64::MAX).await.unwrap();
        assert!([first, rest].concat() == old, "{name} value, half read");
        let whole = untouched.value.read_all(u64::MAX).await.unwrap();
        assert!(whole == old, "{name} value, not yet read");
    }
}

async fn ranges_of_values_give_exactly_their_bytes(stores: &Stores) {
    for size in [1usize, 200, (64 << 10) + 1, (2 << 20) + 7] {
        let (key, body) = (action(&format!("{size}")), pattern(46, size));
        stores.set(&key, &body).await;
        for first in [0, size / 3, size - 1] {
            let range = ByteRange::From {
                first: first as u64,
                last: Some(first as u64 + 70_000),
            };
            let entry = stores.entries.get(&key, range).await.unwrap().unwrap();
            assert_eq!(entry.value.total_bytes(), size as u64);
            let bytes = entry.value.read_all(u64::MAX).await.unwrap();
            assert!(
                bytes == body.slice(first..size.min(first + 70_001)),
                "from {first} of {size}"
            );
        }
        let tail = stores
            .value(&key, ByteRange::Suffix(5))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(tail, body.slice(size.saturating_sub(5)..));
        let behind = ByteRange::From {
            first: size as u64,
            last: None,
        };
        assert_eq!(
            refused(stores.value(&key, behind).await),
            Code::RangeInvalid
        );
    }
}

async fn an_absent_precondition_lets_the_first_put_win(stores: &Stores) {
    let put = async |key: &EntryKey, body: &Bytes| {
        let meta = EntryMeta::default();
        let wanted = Precondition::Absent;
        stores
            .put_entry(key, body, 1 << 20, meta, wanted, None)
            .await
    };
    for (name, size) in [("small", 10), ("large", (2 << 20) + 1)] {
        let (key, first) = (action(name), pattern(47, size));
        put(&key, &first).await.unwrap();
        assert_eq!(refused(put(&key, &pattern(48, size)).await), Code::Conflict);
        assert!(stores.value(&key, ByteRange::Full).await.unwrap() == Some(first));
        stores.entries.delete(&key).await.unwrap();
        put(&key, &pattern(49, size)).await.unwrap();
    }
}

async fn of_two_puts_that_want_absence_one_wins(stores: &Stores) {
    for round in 0..10 {
        let key = action(&format!("key-{round}"));
        let bodies = [pattern(50, 1000), pattern(51, 1000)];
        let put = |body| {
            let meta = EntryMeta::default();
            stores.put_entry(&key, body, 99, meta, Precondition::Absent, None)
        };
        let (one, other) = both(put(&bodies[0]), put(&bodies[1])).await;
        let winner = usize::from(one.is_err());
        let loser = if one.is_err() { one } else { other };
        assert_eq!(refused(loser), Code::Conflict);
        let value = stores.value(&key, ByteRange::Full).await.unwrap();
        assert_eq!(value.as_ref(), Some(&bodies[winner]));
    }
}

fn meta(content_type: Option<&str>, client: &[(&str, &str)]) -> EntryMeta {
    let client = client
        .iter()
        .map(|(name, value)| ((*name).into(), (*value).into()));
    EntryMeta {
        content_type: content_type.map(Into::into),
        client: client.collect(),
    }
}

async fn metadata_is_echoed(stores: &Stores) {
    let metas = [
        EntryMeta::default(),
        meta(Some("application/octet-stream"), &[]),
        meta(None, &[("x-artifact-tag", "ab=="), ("x-duration", "12")]),
        meta(
            Some("text/plain; charset=utf-8"),
            &[("b", ""), ("a", "é\u{1F600}"), ("b", "2")],
        ),
        meta(
            Some(&"t".repeat(EntryMeta::MAX_BYTES - 8000)),
            &[("n", &"v".repeat(7999))],
        ),
    ];
    for (number, meta) in metas.iter().enumerate() {
        for size in [0, 70_000] {
            let key = action(&format!("{number}-{size}"));
            let body = pattern(52, size);
            let put = stores.put_entry(&key, &body, 999, meta.clone(), Precondition::None, None);
            put.await.unwrap();
            let entry = stores
                .entries
                .get(&key, ByteRange::Full)
                .await
                .unwrap()
                .unwrap();
            assert_eq!(entry.meta, *meta);
            assert_eq!(entry.value.read_all(u64::MAX).await.unwrap(), body);
        }
    }
}

async fn metadata_over_the_limit_is_refused(stores: &Stores) {
    let key = action("key");
    let value = "v".repeat(EntryMeta::MAX_BYTES);
    let over = meta(None, &[("n", &value)]);
    let body = Bytes::new();
    let put = stores
        .put_entry(&key, &body, 1, over, Precondition::None, None)
        .await;
    assert_eq!(refused(put), Code::Invalid);
    assert_eq!(stores.value(&key, ByteRange::Full).await.unwrap(), None);
}

async fn values_over_the_limit_are_refused(stores: &Stores) {
    for limit in [10usize, (2 << 20) + 5] {
        let key = action(&format!("{limit}"));
        let put = async |body: &Bytes| {
            let meta = EntryMeta::default();
            let limit = Some(limit as u64);
            stores
                .put_entry(&key, body, 65_521, meta, Precondition::None, limit)
                .await
        };
        assert_eq!(refused(put(&pattern(53, limit + 1)).await), Code::TooLarge);
        assert_eq!(stores.value(&key, ByteRange::Full).await.unwrap(), None);
        put(&pattern(54, limit)).await.unwrap();
    }
}

async fn a_deleted_entry_is_gone_and_can_be_put_again(stores: &Stores) {
    for (name, size) in [("small", 10), ("large", (2 << 20) + 1)] {
        let key = action(name);
        assert!(!stores.entries.delete(&key).await.unwrap());
        let first = stores.set(&key, &pattern(55, size)).await;
        assert!(stores.entries.delete(&key).await.unwrap());
        assert_eq!(stores.value(&key, ByteRange::Full).await.unwrap(), None);
        assert!(!stores.entries.delete(&key).await.unwrap());
        let second = stores.set(&key, &pattern(56, size)).await;
        assert_ne!(first, second);
        let value = stores.value(&key, ByteRange::Full).await.unwrap();
        assert!(value == Some(pattern(56, size)));
    }
}

async fn keys_are_apart_by_room_kind_and_text(stores: &Stores) {
    let mut keys = Vec::new();
    for namespace in ["team", "team/a", "other"] {
        for kind in [EntryKind::ActionResult, EntryKind::Ccache] {
            for text in ["k", "K", "a/k", &"k".repeat(EntryKey::MAX_LEN), "é"] {
                keys.push(key(&room(namespace), kind, text));
            }
        }
    }
    for (number, key) in keys.iter().enumerate() {
        assert_eq!(stores.value(key, ByteRange::Full).await.unwrap(), None);
        stores.set(key, &pattern(number as u64, 30)).await;
    }
    assert!(stores.entries.delete(&keys[0]).await.unwrap());
    for (number, key) in keys.iter().enumerate().skip(1) {
        let value = stores.value(key, ByteRange::Full).await.unwrap();
        assert_eq!(value, Some(pattern(number as u64, 30)), "{key:?}");
    }
}

async fn texts(stores: &Stores, prefix: &str, after: Option<&str>, limit: usize) -> Vec<String> {
    let team = room("team");
    let kind = EntryKind::Ccache;
    let rows = stores
        .entries
        .list(&team, kind, prefix, after, limit)
        .await
        .unwrap();
    rows.iter().map(|row| row.text.to_string()).collect()
}

async fn listings_are_ordered_and_cut_as_asked(stores: &Stores) {
    let team = room("team");
    let names = ["b", "a/2", "a/10", "a/1", "c", "a", "a/3", "zz"];
    for name in names {
        stores
            .set(&key(&team, EntryKind::Ccache, name), &pattern(57, 10))
            .await;
    }
    stores
        .set(
            &key(&team, EntryKind::ActionResult, "a/other-kind"),
            &Bytes::new(),
        )
        .await;
    stores
        .set(
            &key(&room("other"), EntryKind::Ccache, "a/other-room"),
            &Bytes::new(),
        )
        .await;
    stores
        .entries
        .delete(&key(&team, EntryKind::Ccache, "a/3"))
        .await
        .unwrap();
    let all = ["a", "a/1", "a/10", "a/2", "b", "c", "zz"];
    assert_eq!(texts(stores, "", None, 100).await, all);
    assert_eq!(texts(stores, "a/", None, 100).await, ["a/1", "a/10", "a/2"]);
    assert_eq!(texts(stores, "a/", Some("a/1"), 100).await, ["a/10", "a/2"]);
    assert_eq!(texts(stores, "a/", Some("a/15"), 1).await, ["a/2"]);
    assert_eq!(texts(stores, "", None, 2).await, ["a", "a/1"]);
    assert_eq!(texts(stores, "", Some("zz"), 9).await, [""; 0]);
    assert_eq!(texts(stores, "nothing", None, 9).await, [""; 0]);
    assert_eq!(texts(stores, "", None, 0).await, [""; 0]);
}

async fn listings_tell_what_get_tells(stores: &Stores) {
    let team = room("team");
    for (name, size) in [("a", 0), ("b", 100_000), ("c", (2 << 20) + 1)] {
        let key = key(&team, EntryKind::Ccache, name);
        stores.set(&key, &pattern(58, 7)).await;
        stores.set(&key, &pattern(59, size)).await;
    }
    let rows = stores
        .entries
        .list(&team, EntryKind::Ccache, "", None, 9)
        .await
        .unwrap();
    assert_eq!(rows.len(), 3, "each key once: {rows:?}");
    for row in rows {
        let key = key(&team, EntryKind::Ccache, &row.text);
        let entry = stores
            .entries
            .get(&key, ByteRange::Full)
            .await
            .unwrap()
            .unwrap();
        let expected = EntryInfo {
            text: row.text.clone(),
            size_bytes: entry.value.total_bytes(),
            version: entry.version,
            created: entry.created,
        };
        assert_eq!(row, expected);
    }
}

async fn a_purge_forgets_entries_of_one_room_only(stores: &Stores) {
    let (team, other) = (room("team"), room("other"));
    let in_room = |namespace, text| key(namespace, EntryKind::Ccache, text);
    for name in ["a", "b"] {
        stores.set(&in_room(&team, name), &pattern(60, 100)).await;
        stores
            .set(&in_room(&other, name), &pattern(61, 70_000))
            .await;
    }
    stores.entries.purge(&team).await.unwrap();
    assert_eq!(texts(stores, "", None, 9).await, [""; 0]);
    for name in ["a", "b"] {
        assert_eq!(
            stores
                .value(&in_room(&team, name), ByteRange::Full)
                .await
                .unwrap(),
            None
        );
        let kept = stores
            .value(&in_room(&other, name), ByteRange::Full)
            .await
            .unwrap();
        assert_eq!(kept, Some(pattern(61, 70_000)));
    }
    stores.set(&in_room(&team, "a"), &pattern(62, 5)).await;
    assert_eq!(texts(stores, "", None, 9).await, ["a"]);
}
