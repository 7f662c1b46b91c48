//! Orphans, garbage, nodes, volumes, sessions, settings and counters.

use super::*;

pub(super) fn orphans_come_sorted_in_pages(store: &Store) -> Done {
    write(store, |txn| {
        [9, 3, 7, 5, 3].into_iter().try_for_each(|ino| txn.put_orphan(Ino(ino)))?;
        txn.delete_orphan(Ino(5))
    })?;
    read(store, |txn| {
        assert_eq!(txn.orphans(Ino(0), 2)?, [Ino(3), Ino(7)]);
        assert_eq!(txn.orphans(Ino(7), 2)?, [Ino(9)]);
        assert_eq!(txn.orphans(Ino(0), 0)?, []);
        Ok(())
    })
}

pub(super) fn garbage_comes_oldest_first(store: &Store) -> Done {
    write(store, |txn| {
        let rows =
            [garbage(4, 10, 5), garbage(1, 20, 0), garbage(3, 10, 6), garbage(2, 10, 5), garbage(5, -1, 0)];
        rows.iter().try_for_each(|row| txn.put_garbage(row))
    })?;
    let keys = |secs, nanos, limit| {
        let rows = read(store, move |txn| txn.garbage(at(secs, nanos), limit))?;
        Ok::<_, StoreError>(rows.into_iter().map(|row| row.blob.key.0).collect::<Vec<_>>())
    };
    assert_eq!(keys(100, 0, 9)?, [5, 2, 4, 3, 1]);
    assert_eq!(keys(100, 0, 2)?, [5, 2]);
    assert_eq!(keys(20, 0, 9)?, [5, 2, 4, 3]);
    assert_eq!(keys(10, 6, 9)?, [5, 2, 4]);
    assert_eq!(keys(10, 5, 9)?, [5]);
    assert_eq!(keys(-1, 0, 9)?, Vec::<u64>::new());
    write(store, |txn| txn.delete_garbage(blob(1, 2)))?;
    assert_eq!(keys(100, 0, 9)?, [5, 4, 3, 1]);
    assert_eq!(read(store, |txn| txn.garbage(at(0, 0), 1))?, [garbage(5, -1, 0)]);
    Ok(())
}

pub(super) fn garbage_put_again_has_its_new_age(store: &Store) -> Done {
    write(store, |txn| {
        txn.put_garbage(&garbage(1, 10, 0))?;
        txn.put_garbage(&garbage(1, 30, 0))
    })?;
    assert_eq!(read(store, |txn| txn.garbage(at(20, 0), 9))?, []);
    assert_eq!(read(store, |txn| txn.garbage(at(40, 0), 9))?, [garbage(1, 30, 0)]);
    Ok(())
}

pub(super) fn nodes_are_kept(store: &Store) -> Done {
    write(store, |txn| {
        txn.put_node(&node(3, "u3", "three"))?;
        txn.put_node(&node(1, "u1", "one"))?;
        txn.put_node(&node(2, "u2", "two"))?;
        txn.put_node(&NodeRow { url: "http://moved".into(), duty: NodeDuty::Drain, ..node(1, "u1", "uno") })?;
        txn.delete_node(NodeId(2))
    })?;
    let moved = NodeRow { url: "http://moved".into(), duty: NodeDuty::Drain, ..node(1, "u1", "uno") };
    assert_eq!(read(store, |txn| txn.nodes())?, [moved, node(3, "u3", "three")]);
    Ok(())
}

pub(super) fn nodes_do_not_share_a_name_or_identity(store: &Store) -> Done {
    write(store, |txn| txn.put_node(&node(1, "u1", "one")))?;
    refused(store, |txn| txn.put_node(&node(2, "u1", "two")));
    refused(store, |txn| txn.put_node(&node(2, "u2", "one")));
    assert_eq!(read(store, |txn| txn.nodes())?, [node(1, "u1", "one")]);
    Ok(())
}

pub(super) fn volumes_are_kept(store: &Store) -> Done {
    let open = VolumeRow { open_for: Some(u64::MAX), ..volume(1) };
    write(store, move |txn| {
        txn.put_volume(&volume(2))?;
        txn.put_volume(&open)?;
        txn.put_volume(&VolumeRow { open_for: Some(5), ..volume(3) })?;
        txn.put_volume(&volume(3))?;
        txn.set_volume_next_key(VolumeId(2), BlobKey(256))
    })?;
    let moved = VolumeRow { next_key: BlobKey(256), ..volume(2) };
    assert_eq!(read(store, |txn| txn.volumes())?, [open, moved, volume(3)]);
    Ok(())
}

pub(super) fn volume_seq_only_rises(store: &Store) -> Done {
    write(store, |txn| {
        txn.put_volume(&volume(1))?;
        txn.raise_volume_seq(VolumeId(1), Seq(5))?;
        txn.raise_volume_seq(VolumeId(1), Seq(3))
    })?;
    assert_eq!(read(store, |txn| txn.volumes())?[0].seq, Seq(5));
    Ok(())
}

pub(super) fn copies_are_kept(store: &Store) -> Done {
    let copy = |v, n, s| CopyRow { volume: VolumeId(v), node: NodeId(n), seq: Seq(s) };
    write(store, move |txn| {
        let rows = [copy(2, 1, 0), copy(1, 9, 4), copy(1, 2, 0), copy(1, 9, 5), copy(3, 3, 3)];
        rows.iter().try_for_each(|row| txn.put_copy(row))?;
        txn.delete_copy(VolumeId(3), NodeId(3))
    })?;
    assert_eq!(read(store, |txn| txn.copies())?, [copy(1, 2, 0), copy(1, 9, 5), copy(2, 1, 0)]);
    Ok(())
}

pub(super) fn call_results_are_kept_per_session(store: &Store) -> Done {
    let session = |id| SessionRow { id: SessionId(id), client: format!("client {id}") };
    write(store, move |txn| {
        for id in [2, 1] {
            txn.put_session(&session(id))?;
            (1..=4).try_for_each(|seq| txn.put_call_result(SessionId(id), seq, &[id as u8, seq as u8]))?;
        }
        txn.put_call_result(SessionId(1), 4, b"again")?;
        txn.delete_call_results_below(SessionId(1), 3)?;
        txn.delete_call_results_below(SessionId(1), 0)
    })?;
    read(store, move |txn| {
        assert_eq!(txn.sessions()?, [session(1), session(2)]);
        assert_eq!(txn.call_result(SessionId(1), 2)?, None);
        assert_eq!(txn.call_result(SessionId(1), 3)?, Some(vec![1, 3]));
        assert_eq!(txn.call_result(SessionId(1), 4)?.as_deref(), Some(&b"again"[..]));
        assert_eq!(txn.call_result(SessionId(2), 1)?, Some(vec![2, 1]));
        Ok(())
    })?;
    assert_eq!(write(store, |txn| txn.delete_session(SessionId(1)))?, []);
    read(store, move |txn| {
        assert_eq!(txn.sessions()?, [session(2)]);
        assert_eq!(txn.call_result(SessionId(1), 4)?, None);
        assert_eq!(txn.call_result(SessionId(2), 4)?, Some(vec![2, 4]));
        Ok(())
    })
}

pub(super) fn settings_are_kept(store: &Store) -> Done {
    write(store, |txn| {
        txn.put_setting("name", "old")?;
        txn.put_setting("name", "näme")?;
        txn.put_setting("NAME", "")
    })?;
    assert_eq!(read(store, |txn| txn.setting("name"))?.as_deref(), Some("näme"));
    assert_eq!(read(store, |txn| txn.setting("NAME"))?.as_deref(), Some(""));
    Ok(())
}

pub(super) fn counters_begin_where_they_should(store: &Store) -> Done {
    for (counter, first) in [
        (Counter::Inode, 2),
        (Counter::Cookie, DirCookie::RESERVED + 1),
        (Counter::Node, 1),
        (Counter::Volume, 1),
        (Counter::Session, 1),
        (Counter::Order, 1),
    ] {
        assert_eq!(write(store, move |txn| txn.take(counter, 1))?, first, "{counter:?}");
    }
    Ok(())
}

pub(super) fn counters_never_hand_out_twice(store: &Store) -> Done {
    let mut next = Counter::Inode.first();
    for count in [1, 10, 0, 65_536, 1] {
        assert_eq!(write(store, move |txn| txn.take(Counter::Inode, count))?, next);
        next += count;
    }
    assert_eq!(write(store, |txn| Ok((txn.take(Counter::Node, 2)?, txn.take(Counter::Node, 2)?)))?, (1, 3));
    Ok(())
}

pub(super) fn exhausted_counter_is_an_error(store: &Store) -> Done {
    let left = i64::MAX as u64 - 1;
    for too_many in [u64::MAX, i64::MAX as u64, left + 1] {
        refused(store, move |txn| txn.take(Counter::Node, too_many).map(drop));
    }
    assert_eq!(write(store, move |txn| txn.take(Counter::Node, left))?, 1);
    refused(store, |txn| txn.take(Counter::Node, 1).map(drop));
    Ok(())
}
