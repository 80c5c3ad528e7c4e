//! What an answer says, quoted for people: bounded, with phones masked.

use crate::domain::answer::{Answer, Body, Reply, beginning};
use crate::domain::fields::storable;
use crate::domain::phone::without_phones;

/// The gateway's words about an error, phones masked: its message, else its code.
pub(crate) fn words(reply: &Reply) -> Option<String> {
    const BYTES: usize = 300;
    let said = reply.message().or_else(|| reply.error_code())?.trim();
    // The text is masked before it is cut, since nobody would recognise a part of a phone number.
    let said = storable(beginning(&without_phones(said), BYTES));
    (!said.is_empty()).then_some(said)
}

/// The beginning of a quotation from a page that is not ApiPay's.
pub(crate) const NOT_IN_ITS_WORDS: &str = "not in ApiPay's words";

/// What came in place of a clear answer, for people.
pub(crate) fn got(answer: &Answer) -> String {
    match answer {
        Answer::NotSent(cause) => cause.code().to_owned(),
        Answer::Lost(lost) => lost.code().to_owned(),
        Answer::Reply(reply) => {
            let said = words(reply).or_else(|| page(reply));
            let said = said.map_or_else(String::new, |said| format!(": {said}"));
            format!("HTTP {}{said}", reply.status)
        }
    }
}

/// The beginning of an answer that is not in the gateway's words, for people: of a page its text.
pub(crate) fn page(reply: &Reply) -> Option<String> {
    const BYTES: usize = 200;
    let text = match &reply.body {
        Body::Text(text) => without_tags(text),
        Body::Json(value) if !reply.is_gateway_error() => value.to_string(),
        Body::Json(_) | Body::TooLarge | Body::Broken => return None,
    };
    let words: Vec<&str> = text.split_whitespace().collect();
    // Its title is its heading, most of the time.
    let repeated = (2..=words.len() / 2).find(|n| words[..*n] == words[*n..2 * n]);
    let words = &words[repeated.unwrap_or_default()..];
    let said = storable(beginning(&words.join(" "), BYTES));
    (!said.is_empty()).then_some(said)
}

/// The text of a page; what stands in its tags, comments, styles and scripts is for browsers.
fn without_tags(page: &str) -> String {
    // As long as the page, byte by byte.
    let lower = page.to_ascii_lowercase();
    let mut text = String::new();
    let mut at = 0;
    while let Some(before) = page[at..].find('<') {
        text.push_str(&page[at..at + before]);
        text.push(' ');
        let tag = at + before + 1;
        let end = match &lower[tag..] {
            name if name.starts_with("script") => "</script",
            name if name.starts_with("style") => "</style",
            name if name.starts_with("!--") => "-->",
            _ => "",
        };
        let closing = lower[tag..].find(end).and_then(|from| {
            let from = tag + from;
            lower[from..].find('>').map(|to| from + to + 1)
        });
        at = closing.unwrap_or(page.len());
    }
    text + &page[at..]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn of_a_page_that_is_not_the_gateways_people_read_the_beginning_of_its_text() {
        let page = |body| page(&Reply::new(429, body, Default::default(), true));
        let text = |written: &str| page(Body::Text(written.to_owned()));
        assert_eq!(
            text("<html>\r\n<head><TITLE>429 Too Many</TITLE></head><style>p > a {x: 1}</style><!-- none --><p>nginx</p>").as_deref(),
            Some("429 Too Many nginx")
        );
        let nginx = "<title>429 Too Many Requests</title><h1>429 Too Many Requests</h1><hr>nginx";
        assert_eq!(text(nginx).as_deref(), Some("429 Too Many Requests nginx"));
        assert_eq!(text("slow <down").as_deref(), Some("slow"));
        assert_eq!(text("<script>if (a < b) {}"), None);
        assert_eq!(text(" "), None);
        assert_eq!(text(&"ы".repeat(500)), Some("ы".repeat(100)));
        assert_eq!(text("<!-- a > b --><p>c</p>").as_deref(), Some("c"));
        assert_eq!(page(Body::Broken), None);
        assert_eq!(page(Body::Json(json!({"message": "its own words"}))), None);
        assert_eq!(
            page(Body::Json(json!({"title": "Slow down"}))).as_deref(),
            Some(r#"{"title":"Slow down"}"#)
        );
    }
}
