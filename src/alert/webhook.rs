//! The channel that posts deliveries as JSON, in the shape of Alertmanager's webhooks (version 4).
//!
//! Its URL is a secret: it never reaches an error or a log.

use std::sync::Arc;
use std::time::Duration;

use reqwest::Client;
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use reqwest::redirect::Policy;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::delivery::{Delivery, Status, counted};
use crate::names::Resolver;

/// Posts deliveries to one URL.
pub struct Webhook {
    client: Client,
    url: SecretString,
    timeout: Duration,
}

/// Why a delivery was not delivered. Names no URL.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// No answer.
    #[error("the alert receiver did not answer")]
    Unanswered(#[source] reqwest::Error),
    /// Another answer than 2xx.
    #[error("the alert receiver answered {0}")]
    Refused(u16),
    /// The URL or the TLS set-up cannot be used.
    #[error("alerts.webhook cannot be used")]
    Unusable(#[source] reqwest::Error),
}

impl Webhook {
    /// Prepares the channel, of which a whole delivery may take as long as `timeout`; connects nowhere. The process must
    /// have installed its TLS provider.
    pub fn new(url: SecretString, timeout: Duration) -> Result<Webhook, SendError> {
        let client = Client::builder()
            .timeout(timeout)
            .connect_timeout(timeout.min(CONNECT_TIMEOUT_MAX))
            .redirect(Policy::none())
            .no_proxy()
            // A receiver may well be in a private network.
            .dns_resolver(Arc::new(Resolver::new(true)))
            .user_agent(concat!("apipayd/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| SendError::Unusable(error.without_url()))?;
        Ok(Webhook {
            client,
            url,
            timeout,
        })
    }

    /// How long a whole delivery may take.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Posts it once. Any 2xx counts; nothing is tried again here.
    pub async fn send(&self, delivery: &Delivery) -> Result<(), SendError> {
        let reply = self
            .client
            .post(self.url.expose_secret())
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .body(body(delivery).to_string())
            .send()
            .await
            .map_err(|error| {
                let is_builder = error.is_builder();
                let error = error.without_url();
                if is_builder {
                    SendError::Unusable(error)
                } else {
                    SendError::Unanswered(error)
                }
            })?;
        match reply.status() {
            status if status.is_success() => Ok(()),
            status => Err(SendError::Refused(status.as_u16())),
        }
    }
}

const CONNECT_TIMEOUT_MAX: Duration = Duration::from_secs(5);

/// The time of the end of what has not ended, in Alertmanager's JSON.
const NO_END: &str = "0001-01-01T00:00:00Z";

fn body(delivery: &Delivery) -> Value {
    let (status, ends_at) = match &delivery.status {
        Status::Firing | Status::StillFiring => ("firing", NO_END.to_owned()),
        Status::Resolved { at, .. } => ("resolved", rfc3339(*at)),
    };
    let alertname = format!("Apipay{}", camel_case(&delivery.kind));
    let group_labels = labels(delivery, json!({ "alertname": alertname }));
    let labels = labels(
        delivery,
        json!({ "alertname": alertname, "severity": delivery.severity, "kind": delivery.kind }),
    );
    let annotations = annotations(delivery);
    json!({
        "version": "4",
        "groupKey": format!("{{}}:{group_labels}"),
        "truncatedAlerts": 0,
        "status": status,
        "receiver": "apipayd",
        "groupLabels": group_labels,
        "commonLabels": labels,
        "commonAnnotations": annotations,
        "externalURL": "",
        "alerts": [{
            "status": status,
            "labels": labels,
            "annotations": annotations,
            "startsAt": rfc3339(delivery.opened_at),
            "endsAt": ends_at,
            "generatorURL": "",
            "fingerprint": fingerprint(&labels),
        }],
    })
}

/// A label without a value is the same as none: alerts of the whole daemon have no account, and most no subject.
fn labels(delivery: &Delivery, mut labels: Value) -> Value {
    if let Some(account) = &delivery.account {
        labels["account"] = json!(account);
    }
    if !delivery.subject.is_empty() {
        labels["subject"] = json!(delivery.subject);
    }
    labels
}

/// Bytes of a text in a delivery: no more than chat programs and pagers behind a receiver take in one message. What is
/// refused for its length would be refused for ever.
const SUMMARY_BYTES: usize = 1_500;
const ACTION_BYTES: usize = 2_000;

/// What follows a text of which the rest is missing. It spoils a statement that was cut in two.
const CUT: &str = " … (cut short; all of it is in apipay.alerts)";

/// A text, or as much of it as is taken.
fn bounded(text: &str, bytes: usize) -> String {
    if text.len() <= bytes {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(bytes - CUT.len());
    format!("{}{CUT}", &text[..end])
}

/// All values are texts: receivers are written in languages that insist.
fn annotations(delivery: &Delivery) -> Value {
    let mut annotations = json!({
        "summary": bounded(&delivery.summary, SUMMARY_BYTES),
        "action": bounded(&delivery.action, ACTION_BYTES),
    });
    // None is another thing than not known.
    if let Some(waiting) = delivery.waiting {
        annotations["jobs_waiting"] = json!(counted(waiting.jobs));
    }
    if let Some(amount) = delivery.waiting.and_then(|waiting| waiting.amount) {
        annotations["amount_waiting_kzt"] = json!(amount.to_string());
    }
    if let Status::Resolved { how, .. } = &delivery.status {
        annotations["resolution"] = json!(bounded(how, SUMMARY_BYTES));
    }
    annotations
}

/// Names the alert's labels: the same in each delivery about it.
fn fingerprint(labels: &Value) -> String {
    let digest = Sha256::digest(labels.to_string());
    digest[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn rfc3339(at: OffsetDateTime) -> String {
    at.format(&Rfc3339).unwrap_or_else(|_| NO_END.to_owned())
}

fn camel_case(kind: &str) -> String {
    let capitalized = |word: &str| {
        let mut letters = word.chars();
        let first = letters.next().map(|letter| letter.to_ascii_uppercase());
        first.into_iter().chain(letters).collect::<String>()
    };
    kind.split('_').map(capitalized).collect()
}

#[cfg(test)]
mod tests {
    use super::super::delivery::Waiting;
    use super::super::delivery::tests::{delivery, resolved};
    use super::*;
    use time::macros::datetime;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    #[test]
    fn a_firing_alert_has_alertmanagers_shape() {
        let expected = json!({
            "version": "4",
            "groupKey": r#"{}:{"account":"shop","alertname":"ApipayAccountParked"}"#,
            "truncatedAlerts": 0,
            "status": "firing",
            "receiver": "apipayd",
            "groupLabels": { "alertname": "ApipayAccountParked", "account": "shop" },
            "commonLabels": {
                "alertname": "ApipayAccountParked", "account": "shop", "severity": "critical",
                "kind": "account_parked",
            },
            "commonAnnotations": {
                "summary": "The Kaspi session has expired.",
                "action": "Log in again, then: select apipay.resume('shop', 'logged in');",
                "jobs_waiting": "37", "amount_waiting_kzt": "125000.50",
            },
            "externalURL": "",
            "alerts": [{
                "status": "firing",
                "labels": {
                    "alertname": "ApipayAccountParked", "account": "shop", "severity": "critical",
                    "kind": "account_parked",
                },
                "annotations": {
                    "summary": "The Kaspi session has expired.",
                    "action": "Log in again, then: select apipay.resume('shop', 'logged in');",
                    "jobs_waiting": "37", "amount_waiting_kzt": "125000.50",
                },
                "startsAt": "2026-11-01T14:02:03Z",
                "endsAt": "0001-01-01T00:00:00Z",
                "generatorURL": "",
                "fingerprint": "",
            }],
        });
        let mut body = body(&delivery(Status::Firing));
        assert_eq!(body["alerts"][0]["fingerprint"].as_str().unwrap().len(), 16);
        body["alerts"][0]["fingerprint"] = json!("");
        assert_eq!(body, expected);
    }

    #[test]
    fn what_was_not_counted_is_left_out_and_not_told_as_none() {
        let mut delivery = delivery(Status::Firing);
        delivery.waiting = None;
        let shown = &body(&delivery)["alerts"][0]["annotations"];
        for field in ["jobs_waiting", "amount_waiting_kzt"] {
            assert_eq!(shown.get(field), None, "{shown}");
        }
        delivery.waiting = Some(Waiting::default());
        let none = &body(&delivery)["commonAnnotations"];
        assert_eq!(none["jobs_waiting"], "0");
        assert_eq!(none.get("amount_waiting_kzt"), None);
    }

    #[test]
    fn a_resolved_alert_keeps_its_identity_and_gets_an_end() {
        let (firing, resolved) = (
            body(&delivery(Status::StillFiring)),
            body(&delivery(resolved())),
        );
        assert_eq!(firing["groupKey"], resolved["groupKey"]);
        for same in ["labels", "startsAt", "fingerprint"] {
            assert_eq!(firing["alerts"][0][same], resolved["alerts"][0][same]);
        }
        assert_eq!(resolved["status"], "resolved");
        assert_eq!(resolved["alerts"][0]["status"], "resolved");
        assert_eq!(resolved["alerts"][0]["endsAt"], "2026-11-01T16:07:03Z");
        assert_eq!(
            resolved["alerts"][0]["annotations"]["resolution"],
            "the gateway is well again"
        );
    }

    #[test]
    fn a_text_that_is_too_long_is_cut_with_a_mark() {
        let mut long = delivery(Status::Resolved {
            at: datetime!(2026-11-01 16:07:03 UTC),
            how: "ы".repeat(100_000),
        });
        long.summary = "ы".repeat(100_000);
        long.action = "update a set b = c where d = e; ".repeat(10_000);
        let body = body(&long);
        let shown = &body["commonAnnotations"];
        for field in ["summary", "action", "resolution"] {
            let text = shown[field].as_str().unwrap();
            assert!(text.ends_with(CUT) && text.len() <= ACTION_BYTES, "{text}");
        }
        assert!(body.to_string().len() < 16_384);
        assert_eq!(bounded("short", 5), "short");
        assert_eq!(
            bounded(&"x".repeat(1_501), SUMMARY_BYTES).len(),
            SUMMARY_BYTES
        );
    }

    #[test]
    fn an_alert_of_the_whole_daemon_has_no_account_and_another_identity() {
        let mut whole = delivery(Status::Firing);
        whole.account = None;
        let (whole, of_shop) = (body(&whole), body(&delivery(Status::Firing)));
        assert_eq!(whole["commonLabels"].get("account"), None);
        assert_ne!(
            whole["alerts"][0]["fingerprint"],
            of_shop["alerts"][0]["fingerprint"]
        );
    }

    #[test]
    fn two_of_a_kind_have_a_subject_and_an_identity_each() {
        let about = |subject: &str| {
            let subject = subject.to_owned();
            body(&Delivery {
                subject,
                ..delivery(Status::Firing)
            })
        };
        let (one, other) = (about("invoice 1"), about("invoice 2"));
        assert_eq!(one["groupLabels"]["subject"], "invoice 1");
        for different in ["groupKey", "commonLabels"] {
            assert_ne!(one[different], other[different]);
        }
        let fingerprint = |body: &Value| body["alerts"][0]["fingerprint"].clone();
        assert_ne!(fingerprint(&one), fingerprint(&other));
    }

    /// A receiver that answers once; gives back what it was sent.
    async fn receiver(answer: &'static str) -> (String, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let task = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            // The body is one object, which ends with the version: keys are sorted.
            while !request.ends_with(b"\"4\"}") {
                let mut part = [0; 4096];
                let length = stream.read(&mut part).await.unwrap();
                request.extend(&part[..length]);
            }
            stream.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8(request).unwrap()
        });
        (format!("http://127.0.0.1:{port}/hook/s3cr3t-canary"), task)
    }

    fn webhook(url: &str) -> Webhook {
        rustls::crypto::ring::default_provider()
            .install_default()
            .ok();
        Webhook::new(url.into(), Duration::from_millis(500)).unwrap()
    }

    #[tokio::test]
    async fn any_2xx_is_a_delivery() {
        let (url, task) = receiver("HTTP/1.1 204 No Content\r\n\r\n").await;
        webhook(&url).send(&delivery(Status::Firing)).await.unwrap();
        let request = task.await.unwrap();
        assert!(
            request.starts_with("POST /hook/s3cr3t-canary HTTP/1.1\r\n"),
            "{request}"
        );
        assert!(
            request.contains("content-type: application/json\r\n"),
            "{request}"
        );
        let (_, sent) = request.split_once("\r\n\r\n").unwrap();
        let sent: Value = serde_json::from_str(sent).unwrap();
        assert_eq!(sent, body(&delivery(Status::Firing)));
    }

    #[tokio::test]
    async fn a_redirect_is_not_followed_and_no_error_shows_the_url() {
        let answer =
            "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n";
        let (url, task) = receiver(answer).await;
        let error = webhook(&url)
            .send(&delivery(Status::Firing))
            .await
            .unwrap_err();
        assert_eq!(error.to_string(), "the alert receiver answered 302");
        task.await.unwrap();

        for url in [
            "http://127.0.0.1:1/s3cr3t-canary",
            "http://host.invalid/s3cr3t-canary",
            "s3cr3t-canary",
        ] {
            let error = webhook(url)
                .send(&delivery(Status::Firing))
                .await
                .unwrap_err();
            let shown = format!("{} {error:?}", crate::telemetry::Chain(&error));
            assert!(!shown.contains("canary"), "{shown}");
        }
    }

    #[tokio::test]
    async fn a_receiver_that_says_nothing_is_not_waited_for() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let error = webhook(&url)
            .send(&delivery(Status::Firing))
            .await
            .unwrap_err();
        assert!(matches!(error, SendError::Unanswered(_)), "{error:?}");
    }
}
