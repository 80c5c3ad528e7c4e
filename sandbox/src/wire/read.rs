//! From bytes to a request.

use super::{LARGEST_BODY, LARGEST_HEAD};
use crate::api::Request;
use crate::envelope::Reply;

const MOST_HEADERS: usize = 100;

pub(super) enum Parsed {
    Whole {
        request: Request,
        keep_alive: bool,
        length: usize,
    },
    Partial,
    Bad(Reply),
}

enum Framing {
    Length(usize),
    Chunked,
}

/// Reads the first request of the bytes, if it is all there.
pub(super) fn parse(bytes: &[u8]) -> Parsed {
    if bytes.is_empty() {
        return Parsed::Partial;
    }
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut head = httparse::Request::new(&mut headers);
    let head_len = match head.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if bytes.len() > LARGEST_HEAD => {
            return bad(431, "The request head is too large");
        }
        Ok(httparse::Status::Partial) => return Parsed::Partial,
        Err(httparse::Error::TooManyHeaders) => {
            return bad(431, "The request has too many headers");
        }
        Err(_) => return bad(400, "The request is not HTTP/1.1"),
    };
    let framing = match framing(&head) {
        Ok(framing) => framing,
        Err(reply) => return Parsed::Bad(reply),
    };
    let rest = &bytes[head_len..];
    let (body, body_len) = match framing {
        Framing::Length(length) if length > LARGEST_BODY => {
            return bad(413, "The request body is too large");
        }
        Framing::Length(length) if rest.len() < length => return Parsed::Partial,
        Framing::Length(length) => (rest[..length].to_vec(), length),
        Framing::Chunked => match dechunk(rest) {
            Dechunked::Whole { body, length } => (body, length),
            Dechunked::Partial => return Parsed::Partial,
            Dechunked::Bad(status, message) => return bad(status, message),
        },
    };
    let keep_alive = keeps_alive(&head);
    Parsed::Whole {
        request: request(&head, body),
        keep_alive,
        length: head_len + body_len,
    }
}

fn bad(status: u16, message: &str) -> Parsed {
    Parsed::Bad(Reply::message_only(status, message))
}

fn request(head: &httparse::Request<'_, '_>, body: Vec<u8>) -> Request {
    let target = head.path.unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    Request {
        method: head.method.unwrap_or_default().to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        key: header(head, "X-API-Key")
            .map(|value| String::from_utf8_lossy(value).trim().to_owned()),
        body,
    }
}

fn header<'a>(head: &'a httparse::Request<'_, '_>, name: &str) -> Option<&'a [u8]> {
    head.headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case(name))
        .map(|header| header.value)
}

fn framing(head: &httparse::Request<'_, '_>) -> Result<Framing, Reply> {
    let refuse = |message: &str| Err(Reply::message_only(400, message));
    let lengths: Vec<_> = head
        .headers
        .iter()
        .filter(|header| header.name.eq_ignore_ascii_case("Content-Length"))
        .collect();
    if let Some(encoding) = header(head, "Transfer-Encoding") {
        if !lengths.is_empty() {
            return refuse("Both Content-Length and Transfer-Encoding");
        }
        let chunked = encoding.trim_ascii().eq_ignore_ascii_case(b"chunked");
        return if chunked {
            Ok(Framing::Chunked)
        } else {
            refuse("Unknown Transfer-Encoding")
        };
    }
    let mut parsed = lengths.iter().map(|header| parse_length(header.value));
    let Some(first) = parsed.next() else {
        return Ok(Framing::Length(0));
    };
    match first {
        Some(length) if parsed.all(|other| other == first) => Ok(Framing::Length(length)),
        _ => refuse("Bad Content-Length"),
    }
}

fn parse_length(value: &[u8]) -> Option<usize> {
    let text = str::from_utf8(value).ok()?.trim();
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())
        .flatten()
}

fn keeps_alive(head: &httparse::Request<'_, '_>) -> bool {
    let connection = header(head, "Connection")
        .unwrap_or_default()
        .to_ascii_lowercase();
    let says = |word: &[u8]| {
        connection
            .split(|byte| *byte == b',')
            .any(|option| option.trim_ascii() == word)
    };
    if head.version == Some(0) {
        says(b"keep-alive")
    } else {
        !says(b"close")
    }
}

enum Dechunked {
    Whole { body: Vec<u8>, length: usize },
    Partial,
    Bad(u16, &'static str),
}

fn dechunk(bytes: &[u8]) -> Dechunked {
    let mut body = Vec::new();
    let mut at = 0;
    loop {
        let (line_len, size) = match httparse::parse_chunk_size(&bytes[at..]) {
            Ok(httparse::Status::Complete(parsed)) => parsed,
            Ok(httparse::Status::Partial) => return Dechunked::Partial,
            Err(_) => return Dechunked::Bad(400, "Bad chunk"),
        };
        at += line_len;
        if size == 0 {
            return end_of_chunks(bytes, at, body);
        }
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        if size > LARGEST_BODY - body.len() {
            return Dechunked::Bad(413, "The request body is too large");
        }
        let Some(chunk) = bytes.get(at..at + size + 2) else {
            return Dechunked::Partial;
        };
        if !chunk.ends_with(b"\r\n") {
            return Dechunked::Bad(400, "Bad chunk");
        }
        body.extend_from_slice(&chunk[..size]);
        at += size + 2;
    }
}

/// Skips trailers up to the empty line.
fn end_of_chunks(bytes: &[u8], mut at: usize, body: Vec<u8>) -> Dechunked {
    let start = at;
    loop {
        let Some(line_len) = bytes[at..].windows(2).position(|pair| pair == b"\r\n") else {
            let endless = bytes.len() - start > LARGEST_HEAD;
            return if endless {
                Dechunked::Bad(431, "Too many trailers")
            } else {
                Dechunked::Partial
            };
        };
        at += line_len + 2;
        if line_len == 0 {
            return Dechunked::Whole { body, length: at };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(bytes: &[u8]) -> String {
        match parse(bytes) {
            Parsed::Whole {
                request,
                keep_alive,
                length,
            } => {
                let body = String::from_utf8_lossy(&request.body).into_owned();
                format!(
                    "{} {} {} {body} keep={keep_alive} rest={}",
                    request.method,
                    request.path,
                    request.query,
                    bytes.len() - length
                )
            }
            Parsed::Partial => "partial".to_owned(),
            Parsed::Bad(reply) => format!("bad {}", reply.status),
        }
    }

    #[test]
    fn requests_are_read_or_refused() {
        for (bytes, expected) in [
            (
                "GET /a?b=c HTTP/1.1\r\n\r\nrest",
                "GET /a b=c  keep=true rest=4",
            ),
            (
                "POST /a HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}",
                "POST /a  {} keep=true rest=0",
            ),
            ("POST /a HTTP/1.1\r\nContent-Length: 3\r\n\r\n{}", "partial"),
            (
                "POST /a HTTP/1.1\r\nContent-Length: +3\r\n\r\n{} ",
                "bad 400",
            ),
            (
                "POST /a HTTP/1.1\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
                "bad 400",
            ),
            (
                "POST /a HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n",
                "bad 413",
            ),
            (
                "POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n1;x=y\r\n}\r\n0\r\nT: v\r\n\r\n",
                "POST /a  {} keep=true rest=0",
            ),
            (
                "POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{}",
                "partial",
            ),
            (
                "POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n{}",
                "bad 413",
            ),
            (
                "POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n{}",
                "bad 400",
            ),
            (
                "GET /a HTTP/1.1\r\nConnection: close\r\n\r\n",
                "GET /a   keep=false rest=0",
            ),
            ("GET /a HTTP/1.0\r\n\r\n", "GET /a   keep=false rest=0"),
            ("\x16\x03\x01\x02\x00", "bad 400"),
        ] {
            assert_eq!(summary(bytes.as_bytes()), expected, "{bytes:?}");
        }
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let whole = b"POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{ }\r\n0\r\n\r\n";
        let mut dice = 1_u64;
        for round in 0..20_000_usize {
            dice = dice
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let mut bytes = whole[..round % (whole.len() + 1)].to_vec();
            if let Some(byte) = bytes.get_mut((dice >> 33) as usize % whole.len()) {
                *byte = (dice >> 20) as u8;
            }
            summary(&bytes);
        }
    }
}
