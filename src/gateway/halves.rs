//! A request body that leaves in two halves, so that a process can die between them.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Sleep, sleep};

use crate::crash::{self, Point};

/// Longer than it takes to flush the first half.
const PAUSE: Duration = Duration::from_millis(100);

/// The text as a body; in halves if the process is to die between them.
pub(super) fn body(text: String) -> reqwest::Body {
    if !crash::is_armed(Point::MidBody) {
        return text.into();
    }
    let mut second = Bytes::from(text);
    let first = second.split_to(second.len() / 2);
    reqwest::Body::wrap(Halves {
        first,
        second,
        pause: Box::pin(sleep(PAUSE)),
    })
}

struct Halves {
    first: Bytes,
    second: Bytes,
    pause: Pin<Box<Sleep>>,
}

impl Body for Halves {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if !self.first.is_empty() {
            self.pause = Box::pin(sleep(PAUSE));
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.first)))));
        }
        if self.second.is_empty() {
            return Poll::Ready(None);
        }
        std::task::ready!(self.pause.as_mut().poll(task));
        crash::reach(Point::MidBody);
        Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.second)))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact((self.first.len() + self.second.len()) as u64)
    }
}
