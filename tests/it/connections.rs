//! The client by itself, before a gateway that drops connections at every moment: a request leaves
//! once or not at all, and "not sent" is said of none that left.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use apipayd::domain::answer::{Answer, Lost};
use apipayd::domain::http::HttpLimits;
use apipayd::domain::operation::Request;
use apipayd::gateway::client::Gateway;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::sleep;

/// What is done to a connection.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Act {
    /// The request is read whole and answered; the connection stays.
    Answer,
    /// Answered, and closed a moment later, when the client may be writing the next request.
    AnswerAndClose(Duration),
    /// Read whole, then closed.
    Swallow,
    /// Read whole, then reset.
    Reset,
    /// Closed after the first bytes.
    Interrupt,
}

/// Each request that arrived, as far as its path, with the number of times.
type Arrived = Arc<Mutex<BTreeMap<usize, usize>>>;

/// A server that does to each request what `act` says, by the number in its path.
async fn serve(act: fn(usize) -> Act) -> (SocketAddr, Arrived, Arc<Mutex<usize>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (arrived, connections) = (Arrived::default(), Arc::new(Mutex::new(0)));
    let (log, count) = (arrived.clone(), connections.clone());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            *count.lock().unwrap() += 1;
            tokio::spawn(converse(stream, act, log.clone()));
        }
    });
    (addr, arrived, connections)
}

async fn converse(mut stream: TcpStream, act: fn(usize) -> Act, arrived: Arrived) {
    let mut bytes = Vec::new();
    loop {
        let Some(number) = read_until(&mut stream, &mut bytes, number_in).await else {
            return;
        };
        *arrived.lock().unwrap().entry(number).or_default() += 1;
        let act = act(number);
        if act == Act::Interrupt {
            return;
        }
        let Some(length) = read_until(&mut stream, &mut bytes, length_of).await else {
            return;
        };
        bytes.drain(..length);
        match act {
            Act::Swallow | Act::Interrupt => return,
            Act::Reset => return stream.set_zero_linger().unwrap(),
            Act::Answer | Act::AnswerAndClose(_) => {}
        }
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
        if stream.write_all(answer).await.is_err() {
            return;
        }
        if let Act::AnswerAndClose(after) = act {
            sleep(after).await;
            return;
        }
    }
}

/// Reads on until something is to be found in the bytes; `None` when the client is gone.
async fn read_until(
    stream: &mut TcpStream,
    bytes: &mut Vec<u8>,
    find: fn(&str) -> Option<usize>,
) -> Option<usize> {
    loop {
        if let Some(found) = find(str::from_utf8(bytes).unwrap()) {
            return Some(found);
        }
        match stream.read_buf(bytes).await {
            Ok(0) | Err(_) => return None,
            Ok(_) => {}
        }
    }
}

fn number_in(text: &str) -> Option<usize> {
    let (number, _) = text.strip_prefix("POST /")?.split_once(' ')?;
    Some(number.parse().unwrap())
}

/// Of the whole first request, once it is there.
fn length_of(text: &str) -> Option<usize> {
    let head = text.find("\r\n\r\n")? + 4;
    let (_, length) = text.split_once("content-length: ")?;
    let body: usize = length.lines().next()?.parse().unwrap();
    (text.len() >= head + body).then_some(head + body)
}

fn gateway(addr: SocketAddr) -> Arc<Gateway> {
    // An error says that another test of this process was first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let limits = HttpLimits {
        connect_timeout: Duration::from_secs(5),
        timeout: Duration::from_secs(10),
        max_body_bytes: 1_000,
    };
    let base = format!("http://{addr}").parse().unwrap();
    Arc::new(Gateway::new(&base, &"key".to_owned().into(), true, limits).unwrap())
}

async fn call(gateway: &Gateway, number: usize) -> Answer {
    // Long enough to be written in more than one piece now and then.
    let body = json!({"number": number, "padding": "x".repeat(number % 7 * 20_000)});
    let request = Request::post(format!("/{number}"), Some(body));
    gateway.call(&request).await.answer
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_swallowed_on_a_reused_connection_is_lost_and_not_repeated() {
    for end in [Act::Swallow, Act::Reset, Act::Interrupt] {
        let act: fn(usize) -> Act = match end {
            Act::Swallow => |number| {
                if number == 1 {
                    Act::Answer
                } else {
                    Act::Swallow
                }
            },
            Act::Reset => |number| if number == 1 { Act::Answer } else { Act::Reset },
            _ => |number| {
                if number == 1 {
                    Act::Answer
                } else {
                    Act::Interrupt
                }
            },
        };
        let mut used = 0;
        // A connection is free for the next request a little after its answer.
        for _ in 0..10 {
            let (addr, arrived, connections) = serve(act).await;
            let gateway = gateway(addr);
            assert!(matches!(call(&gateway, 1).await, Answer::Reply(_)));
            sleep(Duration::from_millis(20)).await;
            assert_eq!(call(&gateway, 2).await, Answer::Lost(Lost::Cut), "{end:?}");
            // Whoever repeats in the background has had the time.
            sleep(Duration::from_millis(300)).await;
            let arrived = arrived.lock().unwrap().clone();
            assert_eq!(arrived, BTreeMap::from([(1, 1), (2, 1)]), "{end:?}");
            used = *connections.lock().unwrap();
            if used == 1 {
                break;
            }
        }
        assert_eq!(used, 1, "no connection was ever reused");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whenever_the_connection_goes_a_request_arrives_at_most_once_and_never_after_not_sent() {
    const CALLS: usize = 1_500;
    let (addr, arrived, connections) = serve(|number| {
        // A sequence without a pattern, the same in every run.
        let dice = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
        match dice % 8 {
            0 => Act::Swallow,
            1 => Act::Reset,
            2 => Act::Interrupt,
            3 | 4 => Act::AnswerAndClose(Duration::from_micros(dice as u64 % 3_000)),
            _ => Act::Answer,
        }
    })
    .await;
    let gateway = gateway(addr);
    let mut callers = JoinSet::new();
    for caller in 0..4 {
        let gateway = gateway.clone();
        callers.spawn(async move {
            let mut answers = Vec::new();
            for number in (caller..CALLS).step_by(4) {
                answers.push((number, call(&gateway, number).await));
            }
            answers
        });
    }
    let answers: Vec<_> = callers.join_all().await.into_iter().flatten().collect();
    sleep(Duration::from_millis(300)).await;
    let arrived = arrived.lock().unwrap().clone();
    let (mut replies, mut lost) = (0, 0);
    for (number, answer) in answers {
        let times = arrived.get(&number).copied().unwrap_or(0);
        match answer {
            Answer::Reply(_) => {
                replies += 1;
                assert_eq!(times, 1, "{number} was answered");
            }
            Answer::Lost(_) => {
                lost += 1;
                assert!(times <= 1, "{number} arrived {times} times");
            }
            Answer::NotSent(cause) => assert_eq!(times, 0, "{number} was not sent: {cause:?}"),
        }
    }
    let connections = *connections.lock().unwrap();
    assert!(replies > CALLS / 3 && lost > CALLS / 6, "{replies} {lost}");
    assert!(
        connections < CALLS - lost / 2,
        "connections were reused: {connections}"
    );
}

/// The listener comes and goes: what is refused was not sent, and that is said of nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_was_not_sent() {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let gateway = gateway(socket.local_addr().unwrap());
    let refused = call(&gateway, 1).await;
    assert!(matches!(refused, Answer::NotSent(_)), "{refused:?}");
    // Accepted by the system and never by a server: all of the request may have left.
    let listener = socket.listen(8).unwrap();
    let lost = tokio::spawn(async move { call(&gateway, 2).await });
    sleep(Duration::from_millis(300)).await;
    drop(listener);
    assert_eq!(lost.await.unwrap(), Answer::Lost(Lost::Cut));
}
