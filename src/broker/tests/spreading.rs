use super::*;

const Q0: Qos = Qos::AtMostOnce;
const Q1: Qos = Qos::AtLeastOnce;
const Q2: Qos = Qos::ExactlyOnce;

#[tokio::test]
async fn one_client_with_overlapping_filters_gets_one_copy_with_all_identifiers() {
    let bench = open().await;
    let mut link = bench.link(hello("a")).await;
    subscribe(&mut link, "t/#", Options { id: Some(1), ..Options::at(Q0) }).await;
    subscribe(&mut link, "t/+", Options { id: Some(2), ..Options::at(Q2) }).await;
    send(&mut link, "t/x", publication("v", Q1, 7));
    assert_eq!(seen(&mut link), ["puback#7 Kept", "t/x=v qos1#1 ids[1, 2]"]);
}

#[tokio::test]
async fn no_local_keeps_a_clients_own_messages_away() {
    let bench = open().await;
    let (mut own, mut other) = (bench.link(hello("own")).await, bench.link(hello("other")).await);
    subscribe(&mut own, "t", Options { no_local: true, ..Options::at(Q0) }).await;
    send(&mut own, "t", publication("mine", Q0, 0));
    send(&mut other, "t", publication("theirs", Q0, 0));
    assert_eq!(seen(&mut own), ["t=theirs"]);
}

#[tokio::test]
async fn retain_flag_is_passed_only_as_published() {
    let bench = open().await;
    let (mut plain, mut kept) = (bench.link(hello("plain")).await, bench.link(hello("kept")).await);
    subscribe(&mut plain, "t", Options::at(Q0)).await;
    subscribe(&mut kept, "t", Options { retain_as_published: true, ..Options::at(Q0) }).await;
    send(&mut plain, "t", Publication { retain: true, ..publication("v", Q0, 0) });
    assert_eq!(seen(&mut plain), ["t=v"]);
    assert_eq!(seen(&mut kept), ["t=v retain"]);
}

#[tokio::test]
async fn retain_handling_decides_who_sees_the_past() {
    let bench = open().await;
    let mut link = bench.link(hello("a")).await;
    send(&mut link, "t", Publication { retain: true, ..publication("v", Q0, 0) });
    for (handling, expected) in [(2, 0), (1, 0), (0, 1)] {
        subscribe(&mut link, "t", Options { retain_handling: handling, ..Options::at(Q0) }).await;
        assert_eq!(seen(&mut link).len(), expected, "again with retain handling {handling}");
    }
    link.unsubscribe(vec!["t".into()]).await.unwrap();
    subscribe(&mut link, "t", Options { retain_handling: 1, ..Options::at(Q0) }).await;
    assert_eq!(seen(&mut link), ["t=v retain"]);
}

#[tokio::test]
async fn a_share_gives_each_message_to_one_connected_member_in_turn() {
    let bench = open().await;
    let mut members = Vec::new();
    for name in ["a", "b", "c"] {
        let mut link = bench.link(hello(name)).await;
        subscribe(&mut link, "$share/g/t/#", Options::at(Q0)).await;
        members.push(link);
    }
    let mut from = bench.link(hello("from")).await;
    for _ in 0..6 {
        send(&mut from, "t/x", publication("v", Q0, 0));
    }
    assert!(members.iter_mut().all(|member| seen(member).len() == 2));
    drop(members.remove(0));
    for _ in 0..6 {
        send(&mut from, "t/x", publication("v", Q0, 0));
    }
    assert!(members.iter_mut().all(|member| seen(member).len() == 3));
}

#[tokio::test]
async fn a_topic_found_before_a_subscription_reaches_it() {
    let bench = open().await;
    let (mut from, mut to) = (bench.link(hello("from")).await, bench.link(hello("to")).await);
    let mut topic = from.topic("t").unwrap();
    from.publish(&mut topic, publication("early", Q1, 1));
    subscribe(&mut to, "t", Options::at(Q1)).await;
    from.publish(&mut topic, publication("late", Q1, 2));
    assert_eq!(seen(&mut from), ["puback#1 NoSubscribers", "puback#2 Kept"]);
    assert_eq!(seen(&mut to), ["t=late qos1#1"]);
}

#[tokio::test]
async fn a_full_queue_drops_qos_0_and_ends_a_clean_client_at_qos_1() {
    let bench = open_with(Config { queue_messages: 4, ..Config::default() }).await;
    let (mut from, mut to) = (bench.link(hello("from")).await, bench.link(hello("to")).await);
    subscribe(&mut to, "t", Options::at(Q1)).await;
    for _ in 0..6 {
        send(&mut from, "t", publication("v", Q0, 0));
    }
    assert_eq!(bench.broker.metrics().dropped_qos0.get(), 2);
    assert_eq!(to.closing(), None);
    send(&mut from, "t", publication("v", Q1, 1));
    assert_eq!(to.closing(), Some(crate::broker::Closing::Overflow));
}

#[tokio::test(start_paused = true)]
async fn a_publisher_waits_for_a_busy_client_but_not_for_a_stuck_one() {
    let bench = open_with(Config { queue_messages: 8, ..Config::default() }).await;
    let (mut from, mut to) = (bench.link(hello("from")).await, bench.link(hello("to")).await);
    subscribe(&mut to, "t", Options::at(Q0)).await;
    let fill = |from: &mut Link| (0..5).filter_map(|_| send(from, "t", publication("v", Q0, 0))).next_back();
    let waiting = fill(&mut from).expect("above half");
    seen(&mut to);
    waiting.await;
    let waiting = fill(&mut from).expect("above half again");
    // Nobody drains: the wait ends by itself, and the next publisher does not wait at all.
    waiting.await;
    assert!(send(&mut from, "t", publication("v", Q0, 0)).is_none());
    bench.clock.advance(std::time::Duration::from_secs(6));
    assert!(send(&mut from, "t", publication("v", Q0, 0)).is_some());
}

#[tokio::test]
async fn an_expired_message_is_not_delivered() {
    let bench = open().await;
    let (mut from, mut to) = (bench.link(hello("from")).await, bench.link(hello("to")).await);
    subscribe(&mut to, "t", Options::at(Q1)).await;
    send(&mut from, "t", Publication { expiry_s: Some(5), ..publication("old", Q1, 1) });
    send(&mut from, "t", Publication { expiry_s: Some(5), retain: true, ..publication("old", Q0, 0) });
    bench.clock.advance(std::time::Duration::from_secs(6));
    send(&mut from, "t", publication("new", Q1, 2));
    assert_eq!(seen(&mut to), ["t=new qos1#2"]);
    bench.broker.tick();
    subscribe(&mut to, "t", Options::at(Q1)).await;
    assert!(seen(&mut to).is_empty());
}

#[tokio::test]
async fn malformed_filters_and_too_many_are_refused_one_by_one() {
    let bench = open_with(Config { subscriptions_per_session: 1, ..Config::default() }).await;
    let mut link = bench.link(hello("a")).await;
    assert_eq!(subscribe(&mut link, "a/#/b", Options::at(Q0)).await, Subscribed::Malformed);
    assert_eq!(subscribe(&mut link, "a", Options::at(Q0)).await, Subscribed::At(Q0));
    assert_eq!(subscribe(&mut link, "b", Options::at(Q0)).await, Subscribed::TooMany);
    assert_eq!(subscribe(&mut link, "a", Options::at(Q2)).await, Subscribed::At(Q2));
    assert!(link.topic("a/+").is_none());
}

#[tokio::test]
async fn a_clean_client_gets_qos_2_once_however_often_it_is_published() {
    let bench = open().await;
    let (mut from, mut to) = (bench.link(hello("from")).await, bench.link(hello("to")).await);
    subscribe(&mut to, "t", Options::at(Q2)).await;
    send(&mut from, "t", publication("v", Q2, 5));
    send(&mut from, "t", publication("v", Q2, 5));
    assert_eq!(seen(&mut from), ["pubrec#5 Kept", "pubrec#5 Kept"]);
    assert_eq!(seen(&mut to), ["t=v qos2#1"]);
    from.pubrel(5);
    from.pubrel(5);
    assert_eq!(seen(&mut from), ["pubcomp#5 Kept", "pubcomp#5 UnknownId"]);
    send(&mut from, "t", publication("w", Q2, 5));
    assert_eq!(to.acknowledged(1, Acknowledgement::Pubrec), Acknowledged::Taken);
    assert_eq!(seen(&mut to), ["pubrel#1", "t=w qos2#2"]);
    assert_eq!(to.acknowledged(1, Acknowledgement::Pubcomp), Acknowledged::Taken);
    assert!(!acked(&mut to, 9));
}
