//! Connections over their life: kept, aged, ended; workers told to finish; reloads.

use super::*;

async fn round(client: &mut Wire, server: &mut Wire) {
    client.send(get("/")).await;
    server.head().await;
    server.send(ok("x")).await;
    client.until("x").await;
}

#[tokio::test]
async fn connections_are_kept_on_both_sides() {
    let model = Model::start().await;
    let plane = Plane::start(&[model.address], Setting::default());
    let mut client = plane.client().await;
    client.send(get("/")).await;
    let mut server = model.accept().await;
    server.head().await;
    server.send(ok("x")).await;
    client.until("x").await;
    for _ in 0..5 {
        round(&mut client, &mut server).await;
    }
    let mut other = plane.client().await;
    round(&mut other, &mut server).await;
    plane.until("two clients", |c| c.connections() == 2).await;
}

#[tokio::test]
async fn a_kept_connection_that_the_server_closed_costs_no_request() {
    let model = Model::start().await;
    let plane = Plane::start(&[model.address], Setting::default());
    let mut client = plane.client().await;
    for body in ["", "POST"] {
        client.send(get("/")).await;
        let mut server = model.accept().await;
        server.head().await;
        server.send(ok("x")).await;
        client.until("x").await;
        drop(server);
        client.send(format!("POST / HTTP/1.1\r\nhost: m\r\ncontent-length: {}\r\n\r\n{body}", body.len())).await;
        let mut server = model.accept().await;
        server.head().await;
        assert_eq!(server.exactly(body.len()).await, body.as_bytes());
        server.send("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 1\r\n\r\ny").await;
        client.until("y").await;
    }
}

#[tokio::test]
async fn a_kept_connection_that_dies_under_a_request_is_retried_only_if_that_is_safe() {
    let model = Model::start().await;
    let plane = Plane::start(&[model.address], Setting::default());
    let mut client = plane.client().await;
    for (request, retried) in [(get("/"), true), ("DELETE / HTTP/1.1\r\nhost: m\r\n\r\n".to_owned(), false)] {
        client.send(get("/warm")).await;
        let mut server = model.accept().await;
        server.head().await;
        server.send(ok("x")).await;
        client.until("x").await;
        client.send(&request).await;
        server.head().await;
        // It was taken, and may have been begun.
        drop(server);
        if retried {
            let mut server = model.accept().await;
            server.head().await;
            server.send("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 1\r\n\r\ny").await;
            client.until("y").await;
        } else {
            assert!(client.head().await.starts_with("HTTP/1.1 502"));
        }
    }
}

#[tokio::test]
async fn many_clients_at_once_get_each_their_own_answer() {
    let model = Model::start().await;
    let plane = Plane::start(&[model.address], Setting { workers: 2, ..Setting::default() });
    let address = model.address;
    let serving = tokio::spawn(async move {
        loop {
            let mut server = model.accept().await;
            tokio::spawn(async move {
                for turn in 0.. {
                    while server.read.windows(4).all(|w| w != b"\r\n\r\n") {
                        if server.more().await == 0 {
                            return;
                        }
                    }
                    let head = server.head().await;
                    let path = head.split(' ').nth(1).unwrap().to_owned();
                    server.send(ok(&path)).await;
                    // Now and then it closes without a word, as servers do.
                    if turn == 20 {
                        return;
                    }
                }
            });
        }
    });
    let clients: Vec<_> = (0..16)
        .map(|number| {
            let plane = plane.address;
            tokio::spawn(async move {
                let mut client = Wire::new(TcpStream::connect(plane).await.unwrap());
                for turn in 0..50 {
                    let path = format!("/{number}/{turn}");
                    client.send(get(&path)).await;
                    let head = client.head().await;
                    assert!(head.starts_with("HTTP/1.1 200"), "{path}: {head}");
                    assert_eq!(client.exactly(path.len()).await, path.as_bytes());
                }
            })
        })
        .collect();
    for client in clients {
        client.await.unwrap();
    }
    plane.until("all counted", |c| c.forwarded(200) == 800 && c.in_flight() == 0).await;
    serving.abort();
    assert_eq!(plane.upstreams, [address]);
}

#[tokio::test]
async fn an_idle_upstream_connection_is_closed_though_no_request_comes() {
    let model = Model::start().await;
    let mut setting = Setting::default();
    setting.traffic.upstream_idle = Duration::from_millis(100);
    let plane = Plane::start(&[model.address], setting);
    let mut client = plane.client().await;
    client.send(get("/")).await;
    let mut server = model.accept().await;
    server.head().await;
    server.send(ok("x")).await;
    client.until("x").await;
    assert_eq!(server.closed().await, "");
}

#[tokio::test]
async fn a_silent_client_is_closed_and_a_busy_one_is_not() {
    let model = Model::start().await;
    let mut setting = Setting::default();
    setting.traffic.client_idle = Duration::from_millis(100);
    let plane = Plane::start(&[model.address], setting);
    let mut busy = plane.client().await;
    busy.send(get("/")).await;
    let mut server = model.accept().await;
    server.head().await;
    for mut silent in [plane.client().await, {
        let mut half = plane.client().await;
        half.send("GET / HT").await;
        half
    }] {
        assert_eq!(silent.closed().await, "");
    }
    server.send(ok("late")).await;
    busy.until("late").await;
    assert_eq!(busy.closed().await, "", "idle after its answer");
}

#[tokio::test]
async fn a_finishing_worker_lets_a_request_end_and_takes_no_other() {
    let model = Model::start().await;
    let mut plane = Plane::start(&[model.address], Setting::default());
    let mut idle = plane.client().await;
    let mut busy = plane.client().await;
    busy.send(get("/")).await;
    let mut server = model.accept().await;
    server.head().await;
    plane.orders.send_replace(Order::Finish { within: PATIENCE });
    assert_eq!(idle.closed().await, "");
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while TcpStream::connect(plane.address).await.is_ok() {
        assert!(tokio::time::Instant::now() < deadline, "still accepting");
    }
    server.send(ok("end")).await;
    let answer = busy.closed().await;
    assert!(answer.contains("connection: close") && answer.ends_with("end"), "{answer}");
    plane.join();
    assert_eq!((plane.counters().in_flight(), plane.counters().connections()), (0, 0));
}

#[tokio::test]
async fn a_worker_out_of_time_cuts_what_is_left_off() {
    let model = Model::start().await;
    let mut plane = Plane::start(&[model.address], Setting::default());
    let mut busy = plane.client().await;
    busy.send(get("/")).await;
    let mut server = model.accept().await;
    server.head().await;
    plane.orders.send_replace(Order::Finish { within: Duration::from_millis(20) });
    assert_eq!(busy.closed().await, "");
    server.closed().await;
    plane.join();
    assert_eq!((plane.counters().in_flight(), plane.counters().connections()), (0, 0));
}

#[tokio::test]
async fn every_worker_beats_and_serves() {
    let model = Model::start().await;
    let plane = Plane::start(&[model.address], Setting { workers: 2, ..Setting::default() });
    plane.until("both beat", |c| c.beats(0) > 1 && c.beats(1) > 1).await;
    assert_eq!(plane.counters().beats(2), 0);
    // Connections are spread by hash: of these, each worker gets some but for one chance in 2^31.
    let mut clients = Vec::new();
    for _ in 0..32 {
        clients.push(plane.client().await);
    }
    plane.until("all accepted", |c| c.connections() == 32).await;
}

#[tokio::test]
async fn a_client_above_the_cap_is_told_so() {
    let model = Model::start().await;
    let mut setting = Setting::default();
    setting.traffic.max_connections = 1;
    let plane = Plane::start(&[model.address], setting);
    let first = plane.client().await;
    plane.until("accepted", |c| c.connections() == 1).await;
    let answer = plane.client().await.closed().await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("connections_full"), "{answer}");
    drop(first);
    plane.until("room again", |c| c.connections() == 0).await;
    let mut next = plane.client().await;
    next.send(get("/")).await;
    let mut server = model.accept().await;
    server.head().await;
    server.send(ok("x")).await;
    next.until("x").await;
}

#[tokio::test]
async fn a_reload_keeps_the_engines_word_for_addresses_that_stay() {
    let (old, new) = (Model::start().await, Model::start().await);
    let plane = Plane::start(&[old.address], Setting::default());
    let mut config = plane.config.clone();
    config.upstream.backends.push(config::Backend { address: new.address.to_string(), weight: 3 });
    config.upstream.backends[0].weight = 2;
    plane.shared.configure(&config, &[old.address, new.address]).unwrap();
    for _ in 0..4 {
        // The new one waits for its first pass; the old one serves on.
        let mut client = plane.client().await;
        client.send(get("/")).await;
        let mut server = old.accept().await;
        server.head().await;
        server.send("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 1\r\n\r\nx").await;
        client.until("x").await;
    }
    plane.shared.configure(&config, &[]).unwrap_err();
}
