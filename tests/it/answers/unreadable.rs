//! Answers that say nothing: no JSON, no shape, no HTTP.

use serde_json::json;

use super::cases::{Case, WELL, applied, case};

/// The effect is there, and what comes back says nothing that could be read.
pub(super) fn replies() -> Vec<Case> {
    let text = |name: &str, body: &str| applied(name, json!({"status": 201, "text": body}));
    let mut cases = vec![
        // Parsers that recurse would be out of stack.
        text("100 000 brackets", &"[".repeat(100_000)),
        text("20 000 objects in each other", &"{\"id\":".repeat(20_000)),
        text("half a number", "{\"id\": 12"),
        text("two objects", "{\"id\": 1} {\"id\": 2}"),
        text("nothing but blanks", "    \r\n"),
        applied(
            "bytes that are no text",
            // {"id":1,"status":"\xff\xfe"}
            json!({"status": 201, "base64": "eyJpZCI6MSwic3RhdHVzIjoi//4ifQ=="}),
        ),
        // What a shape of the right kind says of another request is not taken for this one's.
        text(
            "another amount",
            r#"{"id":999999,"status":"pending","amount":"1.00","invoice_id":999999,
                "invoice":{"id":999999,"status":"cancelled"},"refund":{"id":9,"status":"pending","amount":"1.00"}}"#,
        ),
    ];
    // The client asks for no compression, so it reads none.
    for (encoding, base64) in [
        ("br", "G/8P+CcA4rFAIPcAAA=="),
        ("deflate", "eNrtwQENAAAAwqD3T20PBxQAAADwbhAAAAE="),
        ("zstd", "KLUv/QRYTQAAEAAAAQD79wEW27vYMg=="),
        (
            "gzip, br",
            "H4sIAAAAAAACA+3BAQ0AAADCoPdPbQ8HFAAAAPBuEQAcxwAQAAA=",
        ),
    ] {
        cases.push(applied(
            &format!("compressed with {encoding}"),
            json!({"status": 201, "headers": {"Content-Encoding": encoding}, "base64": base64}),
        ));
    }
    // Numbers that are none, or none of an id's.
    for written in [
        "null",
        "-5",
        "0",
        "1.5",
        "1e400",
        "1e1000000",
        "true",
        "[7]",
        "{}",
        "\"seven\"",
        "\"-7\"",
        "99999999999999999999",
    ] {
        let body = format!(
            r#"{{"id":{written},"status":"pending","invoice_id":{written},
                "invoice":{{"id":{written},"status":"cancelled"}},"refund":{{"id":{written},"status":"pending"}}}}"#
        );
        cases.push(text(&format!("the id {written}"), &body));
    }
    for written in ["null", "7", "[\"pending\"]"] {
        let body = format!(
            r#"{{"id":7,"status":{written},"invoice_id":null,
                "invoice":{{"id":7,"status":{written}}},"refund":{{"id":7,"status":{written}}}}}"#
        );
        cases.push(text(&format!("the status {written}"), &body));
    }
    // No HTTP, or HTTP that contradicts itself.
    for (name, raw) in [
        ("another protocol", "SSH-2.0-OpenSSH_9.2\r\n"),
        ("a status that is none", "HTTP/1.1 2OO OK\r\n\r\n"),
        (
            "a status beyond all",
            "HTTP/1.1 999 ?\r\nContent-Length: 2\r\n\r\n{}",
        ),
        (
            "two lengths",
            "HTTP/1.1 201 Created\r\nContent-Length: 2\r\nContent-Length: 9\r\n\r\n{}",
        ),
        (
            "a length below zero",
            "HTTP/1.1 201 Created\r\nContent-Length: -2\r\n\r\n{}",
        ),
        (
            "chunks that stop",
            "HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"id\"",
        ),
        (
            "chunks of no size",
            "HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
        ),
        (
            "a body up to the end of the connection",
            "HTTP/1.1 201 Created\r\n\r\n{\"id\": 1",
        ),
        (
            "another protocol from here on",
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n",
        ),
        ("a head without end", "HTTP/1.1 201 Created\r\nX-Half: "),
    ] {
        cases.push(case(name, json!({"effect": "apply", "raw": raw}), WELL));
    }
    cases
}
