//! Receivers reached twice, or by many at once.

use std::sync::Arc;
use std::time::Duration;

use branchline::delivery::AttemptResult;
use branchline::send::body_for;
use tokio::io::AsyncWriteExt;
use tokio::sync::Semaphore;

use super::receiver::Receiver;
use super::{attempt, attempt_with, builder, endpoint, event, sender, status};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

#[tokio::test]
async fn attempts_one_after_the_other_share_a_connection() {
    for answer in [OK, b"HTTP/1.1 500 Oops\r\ncontent-length: 2\r\n\r\nno", b"HTTP/1.1 204 None\r\n\r\n"] {
        let receiver = Receiver::answering(answer).await;
        let (sender, endpoint) = (sender().0, endpoint(&receiver.url()));
        for _ in 0..50 {
            attempt(&sender, &endpoint).await;
        }
        assert_eq!(receiver.requests().len(), 50);
        // A connection that is not back yet when the next attempt begins costs another; it must stay the exception.
        assert!(receiver.connections() <= 5, "{}", receiver.connections());
    }
}

#[tokio::test]
async fn attempts_at_the_same_time_reuse_connections() {
    let receiver = Receiver::answering(OK).await;
    let (sender, endpoint) = (Arc::new(sender().0), Arc::new(endpoint(&receiver.url())));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..10 {
        let (sender, endpoint) = (Arc::clone(&sender), Arc::clone(&endpoint));
        tasks.spawn(async move {
            for _ in 0..50 {
                assert_eq!(status(&attempt(&sender, &endpoint).await), 200);
            }
        });
    }
    tasks.join_all().await;
    assert_eq!(receiver.requests().len(), 500);
    assert!(receiver.connections() <= 50, "{}", receiver.connections());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attempts_on_several_threads_reuse_connections() {
    let receiver = Receiver::answering(OK).await;
    let (sender, endpoint) = (sender().0, Arc::new(endpoint(&receiver.url())));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..10 {
        let (sender, endpoint) = (sender.clone(), Arc::clone(&endpoint));
        tasks.spawn(async move {
            for _ in 0..200 {
                assert_eq!(status(&attempt(&sender, &endpoint).await), 200);
            }
        });
    }
    tasks.join_all().await;
    assert_eq!(receiver.requests().len(), 2000);
    assert!(receiver.connections() <= 50, "{}", receiver.connections());
}

#[tokio::test]
async fn an_answer_that_is_not_read_to_its_end_costs_its_connection() {
    let closed = Arc::new(Semaphore::new(0));
    let signal = Arc::clone(&closed);
    let receiver = Receiver::start(move |mut socket, _, log| {
        let signal = Arc::clone(&signal);
        async move {
            log.read_request(&mut socket).await;
            log.write(&mut socket, b"HTTP/1.1 200 OK\r\ncontent-length: 10737418240\r\n\r\nthe beginning").await;
            assert!(!log.read_request(&mut socket).await, "no other request comes into the midst of an answer");
            signal.add_permits(1);
        }
    })
    .await;
    let (sender, endpoint) = (sender().0, endpoint(&receiver.url()));
    for number in 1..=3 {
        assert_eq!(status(&attempt(&sender, &endpoint).await), 200);
        closed.acquire().await.unwrap().forget();
        assert_eq!(receiver.connections(), number);
    }
}

#[tokio::test]
async fn a_connection_that_was_closed_meanwhile_costs_no_attempt() {
    let closed = Arc::new(Semaphore::new(0));
    let signal = Arc::clone(&closed);
    let receiver = Receiver::start(move |mut socket, number, log| {
        let signal = Arc::clone(&signal);
        async move {
            if number == 1 {
                log.read_request(&mut socket).await;
                log.write(&mut socket, OK).await;
                socket.shutdown().await.unwrap();
                drop(socket);
                signal.add_permits(1);
            } else {
                while log.read_request(&mut socket).await && log.write(&mut socket, OK).await {}
            }
        }
    })
    .await;
    let (sender, endpoint) = (sender().0, endpoint(&receiver.url()));
    assert_eq!(status(&attempt(&sender, &endpoint).await), 200);
    closed.acquire().await.unwrap().forget();
    assert_eq!(status(&attempt(&sender, &endpoint).await), 200);
    assert_eq!(receiver.connections(), 2);
    assert_eq!(receiver.requests().len(), 2, "the first request was not sent twice");
}

#[tokio::test]
async fn a_receiver_that_closes_every_connection_is_reached_every_time() {
    let receiver = Receiver::start(|mut socket, _, log| async move {
        log.read_request(&mut socket).await;
        log.write(&mut socket, b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok").await;
    })
    .await;
    let (sender, endpoint) = (sender().0, endpoint(&receiver.url()));
    for _ in 0..20 {
        assert_eq!(status(&attempt(&sender, &endpoint).await), 200);
    }
    assert_eq!(receiver.connections(), 20);
}

#[tokio::test]
async fn a_connection_past_its_age_carries_no_new_request() {
    let receiver = Receiver::answering(OK).await;
    let sender = builder(&["127.0.0.0/8"]).connection_age_max(Duration::ZERO).build().unwrap();
    let endpoint = endpoint(&receiver.url());
    for _ in 0..5 {
        assert_eq!(status(&attempt(&sender, &endpoint).await), 200);
    }
    assert_eq!(receiver.connections(), 5);
}

#[tokio::test]
async fn a_retry_sends_the_same_bytes_under_the_same_id() {
    let receiver = Receiver::answering(OK).await;
    let (sender, endpoint) = (sender().0, endpoint(&receiver.url()));
    let event = event();
    let request = body_for(&event, endpoint.format);
    let head =
        branchline::delivery::EventHead::of(&event, branchline::event::Position { partition: 0, major: 1, minor: 0 });
    let id = branchline::delivery::DeliveryId::derive(&event, "warehouse");
    for number in 1..=2 {
        sender.attempt(&endpoint, &id, &head, "warehouse", number, &request).await;
    }
    let [first, second] = &receiver.requests()[..] else { panic!("two requests") };
    assert_eq!(first.body, second.body);
    assert_eq!(first.headers["webhook-id"], second.headers["webhook-id"]);
    assert_eq!(
        (&first.headers["branchline-attempt"], &second.headers["branchline-attempt"]),
        (&"1".parse().unwrap(), &"2".parse().unwrap())
    );
    let trace = |of: &super::receiver::Received| of.headers["traceparent"].to_str().unwrap()[..36].to_owned();
    assert_eq!(trace(first), trace(second), "one trace");
    assert_ne!(first.headers["traceparent"], second.headers["traceparent"], "two spans");
}

#[tokio::test]
async fn a_large_body_arrives_whole() {
    let receiver = Receiver::answering(OK).await;
    let mut endpoint = endpoint(&receiver.url());
    endpoint.timeout = Duration::from_secs(10);
    let mut request = body_for(&event(), endpoint.format);
    request.body = vec![b'x'; 4 << 20].into();
    assert_eq!(status(&attempt_with(&sender().0, &endpoint, 1, &request).await), 200);
    assert_eq!(receiver.requests()[0].body, request.body);
}

/// The worst case of a connection that ends while a request is on its way: without a second try, some of these fail.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_closes_after_every_answer_without_saying_so_costs_no_attempt() {
    let receiver = Receiver::start(|mut socket, _, log| async move {
        log.read_request(&mut socket).await;
        log.write(&mut socket, OK).await;
    })
    .await;
    let (sender, endpoint) = (sender().0, endpoint(&receiver.url()));
    for _ in 0..500 {
        assert_eq!(status(&attempt(&sender, &endpoint).await), 200);
    }
    assert_eq!(receiver.requests().len(), 500, "none was received twice");
}

#[tokio::test]
async fn a_receiver_that_dies_of_a_request_gets_it_a_bounded_number_of_times() {
    let receiver = Receiver::start(|mut socket, _, log| async move {
        log.read_request(&mut socket).await;
        log.write(&mut socket, OK).await;
        log.read_request(&mut socket).await;
    })
    .await;
    let (sender, endpoint) = (sender().0, endpoint(&receiver.url()));
    let mut answered = 0;
    for _ in 0..20 {
        if matches!(attempt(&sender, &endpoint).await.result, AttemptResult::Answered { status: 200, .. }) {
            answered += 1;
        }
    }
    assert!(answered >= 10, "a new connection is answered: {answered}");
    assert!(receiver.requests().len() <= 60, "{}", receiver.requests().len());
}

#[tokio::test]
async fn connections_of_endpoints_that_are_gone_are_closed_and_those_of_others_stay() {
    let (closed, answer) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let (signal, wait) = (Arc::clone(&closed), Arc::clone(&answer));
    let gone = Receiver::start(move |mut socket, _, log| {
        let (signal, wait) = (Arc::clone(&signal), Arc::clone(&wait));
        async move {
            while log.read_request(&mut socket).await {
                wait.acquire().await.unwrap().forget();
                log.write(&mut socket, OK).await;
            }
            signal.add_permits(1);
        }
    })
    .await;
    let stays = Receiver::answering(OK).await;
    let (sender, [to_gone, to_stay]) = (sender().0, [gone.url(), stays.url()].map(|url| Arc::new(endpoint(&url))));
    answer.add_permits(1);
    assert_eq!(status(&attempt(&sender, &to_gone).await), 200);
    assert_eq!(status(&attempt(&sender, &to_stay).await), 200);

    // The one that is idle is closed at once.
    sender.keep_connections_of([&*to_stay].into_iter());
    closed.acquire().await.unwrap().forget();

    // One with a request under way is closed when that has its answer.
    let under_way = tokio::spawn({
        let (sender, to_gone) = (sender.clone(), Arc::clone(&to_gone));
        async move { status(&attempt(&sender, &to_gone).await) }
    });
    crate::support::eventually("the request is there", Duration::from_secs(30), async || {
        (gone.requests().len() == 2).then_some(())
    })
    .await;
    sender.keep_connections_of([&*to_stay].into_iter());
    answer.add_permits(1);
    assert_eq!(under_way.await.unwrap(), 200);
    closed.acquire().await.unwrap().forget();

    assert_eq!(status(&attempt(&sender, &to_stay).await), 200);
    assert_eq!((gone.connections(), stays.connections()), (2, 1));
}
