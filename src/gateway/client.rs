//! One request, one answer.

use std::time::{Duration, Instant};

use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::redirect;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use tracing::debug;

use crate::crash::{self, Point};
use crate::domain::answer::{Answer, Body, Limits, Reply, Timed};
use crate::domain::http::HttpLimits;
use crate::domain::operation::{Method, Request};
use crate::gateway::fault;
#[cfg(feature = "crash-points")]
use crate::gateway::halves;
use crate::gateway::wire;
use crate::names::Resolver;
use crate::telemetry::Chain;

/// An account at the gateway: its address and its key.
pub struct Gateway {
    http: reqwest::Client,
    base: reqwest::Url,
    fingerprint: String,
    limits: HttpLimits,
}

/// Why an account's client could not be made.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// The key holds characters that a header cannot.
    #[error("the API key holds characters that an HTTP header cannot carry")]
    Key,
    /// The HTTP client could not be set up.
    #[error("the HTTP client could not be set up")]
    Client(#[source] reqwest::Error),
}

/// What tells a key from others, and does not tell the key: the first 16 hexadecimal digits of a hash. A key is of one
/// organization (API, section 1), by whichever address, and long and random, so nobody finds it by trying.
pub fn fingerprint(key: &SecretString) -> String {
    let text = format!("apipayd key\n{}", key.expose_secret());
    let digest = Sha256::digest(text);
    digest[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

impl Gateway {
    /// A client with the account's key in every request.
    ///
    /// It follows no redirect (the key would follow too), uses no proxy of the environment, and
    /// sends nothing twice: what to do about a failure is decided elsewhere.
    pub fn new(
        base: &reqwest::Url,
        key: &SecretString,
        allow_private: bool,
        limits: HttpLimits,
    ) -> Result<Gateway, GatewayError> {
        let fingerprint = fingerprint(key);
        let mut key = HeaderValue::from_str(key.expose_secret()).map_err(|_| GatewayError::Key)?;
        key.set_sensitive(true);
        let mut headers = HeaderMap::new();
        headers.insert("X-API-Key", key);
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        let http = reqwest::Client::builder()
            .default_headers(headers)
            .user_agent(concat!("apipayd/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .retry(reqwest::retry::never())
            .no_proxy()
            .referer(false)
            .http1_only()
            .tcp_nodelay(true)
            .connect_timeout(limits.connect_timeout)
            // Shorter than servers keep idle connections: one they are closing loses the answer.
            .pool_idle_timeout(Duration::from_secs(15))
            .dns_resolver(std::sync::Arc::new(Resolver::new(allow_private)))
            .build()
            .map_err(GatewayError::Client)?;
        Ok(Gateway {
            http,
            base: base.clone(),
            fingerprint,
            limits,
        })
    }

    /// The fingerprint of the account's key (see [`fingerprint`]).
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Makes one request. It must not be dropped before it ends: an answer would be lost.
    pub async fn call(&self, request: &Request) -> Timed {
        let started = Instant::now();
        let answer = self.exchange(request).await;
        Timed {
            answer,
            took: started.elapsed(),
        }
    }

    async fn exchange(&self, request: &Request) -> Answer {
        let mut http = self
            .http
            .request(
                match request.method {
                    Method::Get => reqwest::Method::GET,
                    Method::Post => reqwest::Method::POST,
                },
                self.url(request),
            )
            .timeout(self.limits.timeout);
        if let Some(body) = &request.body {
            let body = body.to_string();
            #[cfg(feature = "crash-points")]
            let body = halves::body(body);
            http = http.header(CONTENT_TYPE, "application/json").body(body);
        }
        match http.send().await {
            Ok(response) => {
                // Health is asked at any time, beside what a test is about.
                if request.path != wire::HEALTH {
                    crash::reach(Point::AfterHeaders);
                }
                let status = response.status().as_u16();
                let limits = read_limits(response.headers());
                let body = self.read_body(response).await;
                Answer::Reply(Reply::new(status, body, limits, request.names_object()))
            }
            Err(error) => {
                // The error names the URL, whose query may hold a job's name, so that is left out.
                let error = error.without_url();
                debug!(error = %Chain(&error), "no answer");
                fault::answer_of(&error)
            }
        }
    }

    fn url(&self, request: &Request) -> reqwest::Url {
        let mut url = self.base.clone();
        // A URL without a path has the path "/".
        let below = self.base.path().trim_end_matches('/');
        url.set_path(&format!("{below}{}", request.path));
        if !request.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&request.query);
        }
        url
    }

    async fn read_body(&self, mut response: reqwest::Response) -> Body {
        let mut bytes = Vec::new();
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) if bytes.len() + chunk.len() > self.limits.max_body_bytes => {
                    return Body::TooLarge;
                }
                Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
                Ok(None) => return Body::read(&bytes),
                Err(_) => return Body::Broken,
            }
        }
    }
}

fn read_limits(headers: &HeaderMap) -> Limits {
    let texts = |name: &str| {
        let values = headers.get_all(name).into_iter();
        values.filter_map(|value| value.to_str().ok())
    };
    Limits {
        retry_after: texts("retry-after").map(str::to_owned).collect(),
        reset: texts("x-ratelimit-reset")
            .filter_map(|unix| unix.trim().parse().ok())
            .max(),
        remaining: texts("x-ratelimit-remaining")
            .filter_map(|count| count.trim().parse().ok())
            .min(),
        date: texts("date").next().map(str::to_owned),
    }
}
