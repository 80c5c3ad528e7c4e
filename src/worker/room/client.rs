//! The account's client: every request of the account goes through it, and what each answer shows in passing is noted.

use std::time::Duration;

use super::modes::Modes;
use super::rate::RateRefusals;
use super::serving::Serving;
use crate::domain::answer::{Answer, Timed};
use crate::domain::operation::Request;
use crate::gateway::client::Gateway;
use crate::gateway::wire;
use crate::heart;
use crate::policy::judge::is_refused_for_rate;
use crate::worker::clock::Moment;

/// The way to the gateway with one account's key. It is the only one, so nothing leaves while the key is in doubt.
pub struct Client {
    gateway: Gateway,
    /// Whether anything may be asked at all.
    pub serving: Serving,
    /// Refusals for the rate in a row.
    pub refusals: RateRefusals,
    /// What answers have shown of the account's mode.
    pub modes: Modes,
}

impl Client {
    /// A client whose key is not known to be of the account's organization yet.
    pub fn new(gateway: Gateway) -> Client {
        Client {
            gateway,
            serving: Serving::default(),
            refusals: RateRefusals::default(),
            modes: Modes::default(),
        }
    }

    /// Asks the gateway, once, counts refusals for the rate and notes in which mode the account is. Never fails:
    /// what went wrong is an answer. With a key that is not known to be of the account's organization nothing leaves,
    /// whoever asks.
    pub async fn call(&self, request: &Request) -> Timed {
        if !self.serving.serves() {
            return Timed {
                answer: Answer::NotSent(self.serving.unserved()),
                took: Duration::ZERO,
            };
        }
        let leaving = self.refusals.leaving(Moment::now());
        let timed = self.gateway.call(request).await;
        heart::beat();
        self.refusals
            .note(leaving, is_refused_for_rate(&timed.answer));
        if let Some(shown) = wire::shown_mode(&timed) {
            self.modes.see(shown);
        }
        timed
    }

    /// Asks the gateway whether it knows these invoices by the account's key: the one question that a key may be used
    /// for before it is known to be of the account's organization. What it shows says nothing of the account yet.
    pub async fn ask_for_invoices(&self, invoices: &[i64]) -> Timed {
        self.gateway.call(&wire::check_invoices(invoices)).await
    }

    /// What tells its key from others.
    pub fn fingerprint(&self) -> &str {
        self.gateway.fingerprint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::answer::NotSent;

    /// A client whose gateway is a listener of this test, on a runtime of the test's.
    fn client_at(address: std::net::SocketAddr) -> Client {
        let base = reqwest::Url::parse(&format!("http://{address}")).unwrap();
        let second = Duration::from_secs(1);
        let limits = crate::domain::http::HttpLimits {
            connect_timeout: second,
            timeout: second,
            max_body_bytes: 1_000,
        };
        let key = secrecy::SecretString::from("a key");
        Client::new(Gateway::new(&base, &key, true, limits).unwrap())
    }

    #[tokio::test]
    async fn with_a_key_in_doubt_nothing_leaves_but_the_look_for_an_invoice() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let client = client_at(listener.local_addr().unwrap());
        let requests = [
            wire::account_health(),
            wire::check_invoices(&[7]),
            wire::get_invoice(7),
        ];
        for request in &requests {
            let timed = client.call(request).await;
            assert_eq!(timed.answer, Answer::NotSent(NotSent::KeyDoubted));
        }
        assert!(client.serving.know());
        client.serving.doubt_key();
        let timed = client.call(&requests[0]).await;
        assert_eq!(timed.answer, Answer::NotSent(NotSent::KeyDoubted));
        assert!(listener.accept().is_err(), "nobody has connected");
        let asked = client.ask_for_invoices(&[7]).await;
        assert_ne!(asked.answer, Answer::NotSent(NotSent::KeyDoubted));
        assert!(listener.accept().is_ok());
        client.serving.know();
        let timed = client.call(&requests[0]).await;
        assert_ne!(timed.answer, Answer::NotSent(NotSent::KeyDoubted));
        assert!(listener.accept().is_ok());
    }
}
