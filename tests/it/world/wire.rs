//! A way to the database that knows enough of the protocol to be cut at a certain statement.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::proxy::SOCKET;

/// Where the connection is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Before the server has the statement.
    Before,
    /// After the server has committed it, before its answer is there.
    After,
}

/// Which statements cut their connection: with these words in their text, and these in their parameters.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Statement {
    pub(crate) text: &'static str,
    pub(crate) parameters: &'static str,
}

struct Order {
    statement: Statement,
    cut: Cut,
    left: usize,
    done: usize,
    /// Each second one passes, or the daemon would wait longer and longer between its tries.
    passes: bool,
}

pub(crate) struct Wire {
    directory: PathBuf,
    order: Arc<Mutex<Order>>,
    /// Raised when all connections so far fall silent.
    silenced: watch::Sender<u32>,
    server: JoinHandle<()>,
}

impl Wire {
    /// Listens in `parent` as Postgres would, and leads to the server whose socket is in `to`.
    pub(super) fn start(parent: &Path, to: &Path) -> Wire {
        let directory = parent.to_owned();
        let listener = UnixListener::bind(directory.join(SOCKET)).unwrap();
        let order = Arc::new(Mutex::new(Order {
            statement: Statement {
                text: "",
                parameters: "",
            },
            cut: Cut::Before,
            left: 0,
            done: 0,
            passes: false,
        }));
        let (target, orders) = (to.join(SOCKET), order.clone());
        let silenced = watch::Sender::new(0);
        let silence = silenced.subscribe();
        let server = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = UnixStream::connect(&target).await else {
                    continue;
                };
                tokio::spawn(carry(client, server, orders.clone(), silence.clone()));
            }
        });
        Wire {
            directory,
            order,
            silenced,
            server,
        }
    }

    /// From now on cuts the connections of so many of these statements; of those that are to be cut after
    /// their commit only such as return rows, for the others did nothing.
    pub(crate) fn cut(&self, statement: Statement, cut: Cut, times: usize) {
        *self.order.lock().unwrap() = Order {
            statement,
            cut,
            left: times,
            done: 0,
            passes: false,
        };
    }

    /// Nothing passes any more on the connections that there are, and nobody is told: the other machine has
    /// lost its power. New connections work.
    pub(crate) fn silence(&self) {
        self.silenced.send_modify(|times| *times += 1);
    }

    /// How often it has cut since then.
    pub(crate) fn cuts(&self) -> usize {
        self.order.lock().unwrap().done
    }

    pub(crate) fn url(&self, database: &str) -> String {
        let socket = self.directory.to_str().unwrap().replace('/', "%2F");
        // Asking for TLS is no message of the protocol.
        format!("postgres://postgres@{socket}/{database}?sslmode=disable")
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// One connection: ends when either side does, or at the ordered statement.
async fn carry(
    client: UnixStream,
    server: UnixStream,
    order: Arc<Mutex<Order>>,
    mut silence: watch::Receiver<u32>,
) {
    silence.mark_unchanged();
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    // Set once the answer of the statement that is under way must not arrive.
    let swallow = Mutex::new(false);
    // Pinned here, so that a silent connection stays open.
    let requests = pin!(requests(from_client, to_server, &order, &swallow));
    let answers = pin!(answers(from_server, to_client, &order, &swallow));
    tokio::select! {
        _ = requests => {}
        _ = answers => {}
        Ok(()) = silence.changed() => std::future::pending().await,
    }
}

/// Reads a message: its kind, which the start-up message has not, and its body.
async fn message(from: &mut OwnedReadHalf, with_kind: bool) -> std::io::Result<(Vec<u8>, Vec<u8>)> {
    let mut head = vec![0; if with_kind { 5 } else { 4 }];
    from.read_exact(&mut head).await?;
    let length: [u8; 4] = head[head.len() - 4..].try_into().unwrap();
    let mut body = vec![0; u32::from_be_bytes(length) as usize - 4];
    from.read_exact(&mut body).await?;
    Ok((head, body))
}

async fn requests(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    order: &Mutex<Order>,
    swallow: &Mutex<bool>,
) -> std::io::Result<()> {
    let (head, body) = message(&mut from, false).await?;
    to.write_all(&[head, body].concat()).await?;
    // What each prepared statement of this connection says, by its name.
    let mut statements: HashMap<Vec<u8>, String> = HashMap::new();
    loop {
        let (head, body) = message(&mut from, true).await?;
        let mut words = body.split(|byte| *byte == 0);
        let first = words.next().unwrap_or_default().to_vec();
        let second = words.next().unwrap_or_default().to_vec();
        match head[0] {
            b'P' => {
                statements.insert(first, String::from_utf8_lossy(&second).into_owned());
            }
            // Portal, then statement.
            b'B' => {
                let text = statements.get(&second).map_or("", String::as_str);
                match wanted(order, text, &body) {
                    Some(Cut::Before) => return finish(order),
                    Some(Cut::After) => *swallow.lock().unwrap() = true,
                    None => {}
                }
            }
            _ => {}
        }
        to.write_all(&[head, body].concat()).await?;
    }
}

async fn answers(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    order: &Mutex<Order>,
    swallow: &Mutex<bool>,
) -> std::io::Result<()> {
    let mut held: Vec<u8> = Vec::new();
    let mut did_something = false;
    loop {
        let (head, body) = message(&mut from, true).await?;
        let kind = head[0];
        held.extend(head.into_iter().chain(body));
        if *swallow.lock().unwrap() {
            did_something |= kind == b'D';
            // Ready for the next one: this one is committed.
            if kind != b'Z' {
                continue;
            }
            if did_something {
                return finish(order);
            }
            again(order);
            *swallow.lock().unwrap() = false;
        }
        to.write_all(&std::mem::take(&mut held)).await?;
    }
}

/// What to do to this statement, if anything: then it is one less to come.
fn wanted(order: &Mutex<Order>, text: &str, parameters: &[u8]) -> Option<Cut> {
    let mut order = order.lock().unwrap();
    let Statement {
        text: words,
        parameters: values,
    } = order.statement;
    let parameters = String::from_utf8_lossy(parameters);
    if order.left == 0 || !text.contains(words) || !parameters.contains(values) {
        return None;
    }
    if std::mem::replace(&mut order.passes, true) {
        order.passes = false;
        return None;
    }
    order.left -= 1;
    Some(order.cut)
}

fn finish(order: &Mutex<Order>) -> std::io::Result<()> {
    order.lock().unwrap().done += 1;
    Ok(())
}

/// That one did nothing: the next one is cut instead.
fn again(order: &Mutex<Order>) {
    let mut order = order.lock().unwrap();
    order.left += 1;
    order.passes = false;
}
