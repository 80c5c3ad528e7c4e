//! One request, one answer.

use std::time::{Duration, Instant};

use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::redirect;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use crate::crash::{self, Point};
use crate::domain::answer::{Answer, Body, Limits, Reply, Timed};
use crate::domain::operation::{Method, Request};
use crate::gateway::fault;
#[cfg(feature = "crash-points")]
use crate::gateway::halves;
use crate::gateway::resolve::Resolver;

/// Limits of every request.
#[derive(Clone, Copy, Debug)]
pub struct HttpLimits {
    /// For name, connection and TLS together.
    pub connect_timeout: Duration,
    /// For the whole request, the body of the answer included.
    pub timeout: Duration,
    /// Bytes of an answer that are read at most.
    pub max_body_bytes: usize,
}

/// An account at the gateway: its address and its key.
pub struct Gateway {
    http: reqwest::Client,
    base: reqwest::Url,
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
            .dns_resolver(std::sync::Arc::new(Resolver { allow_private }))
            .build()
            .map_err(GatewayError::Client)?;
        let mut base = base.clone();
        let path = base.path().trim_end_matches('/').to_owned();
        base.set_path(&path);
        Ok(Gateway { http, base, limits })
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
                crash::reach(Point::AfterHeaders);
                Answer::Reply(Reply {
                    status: response.status().as_u16(),
                    limits: read_limits(response.headers()),
                    body: self.read_body(response).await,
                })
            }
            Err(error) => fault::answer_of(&error),
        }
    }

    fn url(&self, request: &Request) -> reqwest::Url {
        let mut url = self.base.clone();
        url.set_path(&format!("{}{}", self.base.path(), request.path));
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
                Ok(None) => return parse(&bytes),
                Err(_) => return Body::Broken,
            }
        }
    }
}

/// A body that has come whole. Deep nesting is refused by the parser, and so not JSON.
fn parse(bytes: &[u8]) -> Body {
    const EXCERPT_BYTES: usize = 2_048;
    match serde_json::from_slice::<Value>(bytes) {
        Ok(value) => Body::Json(value),
        Err(_) => Body::Text(
            String::from_utf8_lossy(&bytes[..bytes.len().min(EXCERPT_BYTES)]).into_owned(),
        ),
    }
}

fn read_limits(headers: &HeaderMap) -> Limits {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    Limits {
        retry_after: text("retry-after").map(str::to_owned),
        reset: text("x-ratelimit-reset").and_then(|unix| unix.trim().parse().ok()),
        remaining: text("x-ratelimit-remaining").and_then(|count| count.trim().parse().ok()),
    }
}
