//! From a reply to bytes.

use crate::envelope::{Reply, reason_phrase};

pub(super) struct Serialized {
    pub(super) bytes: Vec<u8>,
    pub(super) head_len: usize,
}

pub(super) fn status_line(status: u16) -> String {
    format!("HTTP/1.1 {status} {}\r\n", reason_phrase(status))
}

pub(super) fn serialize(reply: &Reply, keep_alive: bool) -> Serialized {
    let bodiless = matches!(reply.status, 204 | 304);
    let body = if bodiless { &[][..] } else { &reply.body };
    let mut head = status_line(reply.status);
    for (name, value) in &reply.headers {
        push_header(&mut head, name, value);
    }
    if !bodiless {
        push_header(&mut head, "Content-Length", &body.len().to_string());
    }
    push_header(
        &mut head,
        "Connection",
        if keep_alive { "keep-alive" } else { "close" },
    );
    head.push_str("\r\n");
    let mut bytes = head.into_bytes();
    let head_len = bytes.len();
    bytes.extend_from_slice(body);
    Serialized { bytes, head_len }
}

fn push_header(head: &mut String, name: &str, value: &str) {
    for part in [name, ": ", value, "\r\n"] {
        head.push_str(part);
    }
}
