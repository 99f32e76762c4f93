//! What a session is sent, and in which order.

use super::*;

fn delivery(qos: Qos) -> Delivery {
    Delivery { message: Arc::new(Message::new("t", "x", qos)), qos, retain: false, ids: None }
}

fn drained(queue: &mut Queue, window: usize) -> Vec<String> {
    let (mut out, mut expired) = (Vec::new(), Vec::new());
    queue.drain(window, 10_000, || Duration::from_secs(5), &mut out, &mut expired);
    out.iter()
        .map(|packet| match packet {
            Outgoing::Publish { qos, packet_id, dup, .. } => {
                format!("publish{} {packet_id}{}", *qos as u8, if *dup { " dup" } else { "" })
            }
            Outgoing::Pubrel { packet_id } => format!("pubrel {packet_id}"),
            Outgoing::Reply(_) => "reply".to_owned(),
        })
        .collect()
}

#[test]
fn nothing_goes_out_before_its_row_or_past_an_uncommitted_one() {
    let mut queue = Queue::default();
    let first = queue.push_kept(delivery(Qos::AtLeastOnce), Some(1)).unwrap();
    let second = queue.push_kept(delivery(Qos::AtLeastOnce), Some(2)).unwrap();
    queue.committed(second, 2, 66, true);
    assert_eq!(drained(&mut queue, 10), [""; 0]);
    queue.committed(first, 1, 66, true);
    assert_eq!(drained(&mut queue, 10), ["publish1 1", "publish1 2"]);
}

#[test]
fn a_failed_row_is_never_sent_and_never_blocks() {
    let mut queue = Queue::default();
    let first = queue.push_kept(delivery(Qos::AtLeastOnce), Some(1)).unwrap();
    queue.push_kept(delivery(Qos::AtLeastOnce), None).unwrap();
    queue.committed(first, 1, 66, false);
    assert_eq!(drained(&mut queue, 10), ["publish1 2"]);
}

#[test]
fn the_window_bounds_what_is_in_flight() {
    let mut queue = Queue::default();
    for _ in 0..3 {
        queue.push_kept(delivery(Qos::AtLeastOnce), None).unwrap();
    }
    assert_eq!(drained(&mut queue, 2), ["publish1 1", "publish1 2"]);
    assert_eq!(queue.acknowledged(2, Acknowledgement::Puback), Settled::Done { place: None });
    assert_eq!(drained(&mut queue, 2), ["publish1 3"]);
}

#[test]
fn a_reconnect_repeats_the_unfinished_in_order_under_their_ids() {
    let mut queue = Queue::default();
    for qos in [Qos::AtLeastOnce, Qos::ExactlyOnce, Qos::ExactlyOnce, Qos::AtLeastOnce] {
        queue.push_kept(delivery(qos), None).unwrap();
    }
    assert_eq!(drained(&mut queue, 3), ["publish1 1", "publish2 2", "publish2 3"]);
    queue.acknowledged(2, Acknowledgement::Pubrec);
    queue.reconnected();
    assert_eq!(drained(&mut queue, 9), ["publish1 1 dup", "pubrel 2", "publish2 3 dup", "publish1 4"]);
}

#[test]
fn pubrel_waits_for_the_row_that_says_released() {
    let mut queue = Queue::default();
    let slot = queue.push_kept(delivery(Qos::ExactlyOnce), Some(7)).unwrap();
    queue.committed(slot, 9, 66, true);
    assert_eq!(drained(&mut queue, 9), ["publish2 1"]);
    let release = queue.acknowledged(1, Acknowledgement::Pubrec);
    assert_eq!(release, Settled::Release { number: slot.number, place: Some(7) });
    assert_eq!(drained(&mut queue, 9), [""; 0]);
    queue.released(slot.number);
    assert_eq!(drained(&mut queue, 9), ["pubrel 1"]);
    assert_eq!(queue.acknowledged(1, Acknowledgement::Pubcomp), Settled::Done { place: Some(7) });
    assert_eq!(queue.bytes(), 0);
}

#[test]
fn no_packet_id_is_given_twice_while_one_is_out() {
    let mut queue = Queue::default();
    queue.push_kept(delivery(Qos::AtLeastOnce), None).unwrap();
    for _ in 1..PACKET_IDS {
        let slot = queue.push_kept(delivery(Qos::AtLeastOnce), None).unwrap();
        assert_ne!(slot.packet_id, 1);
        drained(&mut queue, 9);
        queue.acknowledged(slot.packet_id, Acknowledgement::Puback);
    }
    assert_eq!(queue.push_kept(delivery(Qos::AtLeastOnce), None), None);
    queue.acknowledged(1, Acknowledgement::Puback);
    assert_eq!(queue.push_kept(delivery(Qos::AtLeastOnce), None).unwrap().packet_id, 1);
}

#[test]
fn restored_rows_keep_their_packet_ids_and_are_marked_as_repeats() {
    let mut queue = Queue::default();
    let mut page = Vec::new();
    for (packet_id, released) in [(65_534, true), (65_535, false), (3, false)] {
        let place = 65_534 + page.len() as u64;
        page.push(Restored { packet_id, place, released, delivery: delivery(Qos::ExactlyOnce) });
    }
    let (first_place, last_place) = (page[0].place, page[2].place);
    let rows = AtStart { first_packet_id: 65_534, last_packet_id: 3, first_place, last_place, row_bytes: 90 };
    queue.rests_on_disk(&rows);
    queue.disconnected();
    assert_eq!(queue.page_due(), None, "nobody is connected");
    queue.reconnected();
    let of = queue.page_due().unwrap();
    assert_eq!(queue.page_due(), None, "one at a time");
    queue.loaded(&of, Page { rows: page, is_last: true, ..Page::default() });
    assert!(queue.is_in_memory());
    assert_eq!(queue.bytes(), 3 * 66, "the guess is put right");
    let slot = queue.push_kept(delivery(Qos::ExactlyOnce), None).unwrap();
    assert_eq!(slot.packet_id, 4);
    assert_eq!(drained(&mut queue, 9), ["pubrel 65534", "publish2 65535 dup", "publish2 3 dup", "publish2 4"]);
}

#[test]
fn what_waits_for_an_absent_client_is_on_the_disk_only_and_comes_back_in_order() {
    let mut queue = Queue::default();
    let first = queue.push_kept(delivery(Qos::AtLeastOnce), Some(11)).unwrap();
    queue.committed(first, 11, 66, true);
    assert_eq!(drained(&mut queue, 1), ["publish1 1"]);
    let second = queue.push_kept(delivery(Qos::AtLeastOnce), Some(12)).unwrap();
    queue.committed(second, 12, 66, true);
    queue.disconnected();
    assert_eq!((queue.kept.len(), queue.tail.messages()), (1, 1), "only what was sent stays in memory");
    for (place, kept) in [(13, true), (14, false), (15, true)] {
        let slot = queue.push_kept(delivery(Qos::AtLeastOnce), Some(place)).unwrap();
        if place < 15 {
            queue.committed(slot, place, 66, kept);
        }
    }
    assert_eq!((queue.kept.len(), queue.bytes()), (1, 4 * 66));
    queue.reconnected();
    let of = queue.page_due().unwrap();
    assert_eq!(of, PageOf { after: 11, until: 14 }, "not past a commit that is under way");
    let row = |packet_id| Restored {
        packet_id,
        place: u64::from(packet_id) + 10,
        released: false,
        delivery: delivery(Qos::AtLeastOnce),
    };
    queue.loaded(&of, Page { rows: vec![row(2), row(3)], is_last: true, ..Page::default() });
    assert_eq!(queue.page_due(), None);
    queue.committed(Slot { number: 4, packet_id: 5 }, 15, 66, true);
    let of = queue.page_due().unwrap();
    queue.loaded(&of, Page { rows: vec![row(5)], is_last: true, ..Page::default() });
    assert!(queue.is_in_memory());
    assert_eq!(drained(&mut queue, 9), ["publish1 1 dup", "publish1 2", "publish1 3", "publish1 5"]);
    let slot = queue.push_kept(delivery(Qos::AtLeastOnce), Some(16)).unwrap();
    assert_eq!((slot.packet_id, queue.kept.len()), (6, 5), "in memory again");
}

#[test]
fn an_expired_message_is_skipped_and_its_row_named() {
    let mut queue = Queue::default();
    let mut old = Message::new("t", "x", Qos::AtLeastOnce);
    old.expires_at = Some(Duration::from_secs(4));
    let old = Delivery { message: Arc::new(old), qos: Qos::AtLeastOnce, retain: false, ids: None };
    let slot = queue.push_kept(old, Some(9)).unwrap();
    queue.committed(slot, 9, 66, true);
    let (mut out, mut expired) = (Vec::new(), Vec::new());
    queue.drain(9, 10_000, || Duration::from_secs(5), &mut out, &mut expired);
    assert!(out.is_empty());
    assert_eq!((expired, queue.bytes()), (vec![Some(9)], 0));
}

#[test]
fn acknowledgements_of_nothing_are_harmless() {
    let mut queue = Queue::default();
    for how in [Acknowledgement::Puback, Acknowledgement::Pubrec, Acknowledgement::Pubcomp] {
        for packet_id in [0, 1, 65_535] {
            assert_eq!(queue.acknowledged(packet_id, how), Settled::Unknown);
        }
    }
    queue.push_kept(delivery(Qos::ExactlyOnce), None).unwrap();
    drained(&mut queue, 9);
    assert_eq!(queue.acknowledged(1, Acknowledgement::Puback), Settled::Wrong);
    assert_eq!(queue.acknowledged(1, Acknowledgement::Pubcomp), Settled::Wrong);
    queue.acknowledged(1, Acknowledgement::Pubrec);
    assert_eq!(queue.acknowledged(1, Acknowledgement::Puback), Settled::Wrong);
}
