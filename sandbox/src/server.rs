//! Connections: accept, read, ask the hub, answer in the manner a fault demands.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tracing::{debug, warn};

use crate::envelope::Reply;
use crate::faults::Manner;
use crate::hub::{Hub, Late, Plan};
use crate::wire::{Connection, Received, Sent};

/// Serves until told to stop, then drops every connection at once.
pub(crate) async fn serve(listener: TcpListener, hub: Arc<Hub>, mut stop: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    connections.spawn(converse(stream, peer, Arc::clone(&hub), stop.clone()));
                }
                Err(error) => {
                    warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                }
            },
            Some(_) = connections.join_next() => {}
            _ = stop.changed() => return,
        }
    }
}

async fn converse(stream: TcpStream, peer: SocketAddr, hub: Arc<Hub>, stop: watch::Receiver<bool>) {
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%error, "no TCP_NODELAY");
    }
    let mut connection = Connection::new(stream);
    loop {
        match connection.receive().await {
            Ok(Received::Request {
                request,
                keep_alive,
            }) => {
                let plan = hub.begin(request, peer.ip());
                let seq = plan.seq;
                let answered = answer(&mut connection, plan, keep_alive, &hub, &stop).await;
                let status = answered.as_ref().ok().copied().flatten();
                if let Some(seq) = seq {
                    hub.end(seq, status);
                }
                if status.is_none() || !keep_alive {
                    return;
                }
            }
            Ok(Received::Refused(reply)) => {
                let sent = connection.send(&reply, Manner::Whole, false).await;
                debug!(
                    ok = sent.is_ok(),
                    response.status = reply.status,
                    "an unreadable request was refused"
                );
                return;
            }
            Ok(Received::Closed) | Err(_) => return,
        }
    }
}

/// Answers as planned; the status, or `None` when no whole answer went out.
async fn answer(
    connection: &mut Connection,
    plan: Plan,
    keep_alive: bool,
    hub: &Arc<Hub>,
    stop: &watch::Receiver<bool>,
) -> io::Result<Option<u16>> {
    let late = plan
        .late
        .map(|late| apply_later(late, Arc::clone(hub), stop.clone()));
    let rule = plan.hit.map(|hit| hit.rule);
    let manner = rule.as_ref().map_or(Manner::Whole, |rule| rule.manner());
    let reply = match (plan.reply, late) {
        (Some(reply), _) => reply,
        // A rule that never shows the answer need not wait for it.
        (None, Some(_)) if matches!(manner, Manner::Never | Manner::CloseAfter(_)) => {
            Reply::message_only(500, "")
        }
        (None, Some(late)) => match connection.hold_for(late).await {
            Some(Ok(reply)) => reply,
            Some(Err(_)) | None => return Ok(None),
        },
        (None, None) => return Ok(None),
    };
    let Some(rule) = &rule else {
        connection.send(&reply, Manner::Whole, keep_alive).await?;
        return Ok(Some(reply.status));
    };
    if !connection.hold(Some(rule.delay())).await {
        return Ok(None);
    }
    let reply = rule.deform(reply);
    let sent = connection.send(&reply, manner, keep_alive).await?;
    Ok((sent == Sent::Whole).then_some(reply.status))
}

/// Applies an effect after its time even if the client is gone by then.
fn apply_later(
    late: Late,
    hub: Arc<Hub>,
    mut stop: watch::Receiver<bool>,
) -> oneshot::Receiver<Reply> {
    let (sender, receiver) = oneshot::channel();
    tokio::spawn(async move {
        tokio::select! {
            () = tokio::time::sleep(late.after) => {}
            _ = stop.changed() => return,
        }
        if let Some(reply) = hub.apply_late(&late)
            && sender.send(reply).is_err()
        {
            debug!("an effect was applied after its client had gone");
        }
    });
    receiver
}
