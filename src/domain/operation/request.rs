//! A request to the gateway.

use std::fmt;

use serde_json::Value;

/// A request to the gateway, without host and key.
#[derive(Clone, PartialEq)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// The path below the base URL, starting with a slash.
    pub path: String,
    /// The query, unencoded.
    pub query: Vec<(&'static str, String)>,
    /// The JSON body.
    pub body: Option<Value>,
}

/// Without query and body: they hold phone numbers.
impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method.as_str(), self.path)
    }
}

impl Request {
    /// A POST with a body.
    pub fn post(path: impl Into<String>, body: Option<Value>) -> Request {
        Request {
            method: Method::Post,
            path: path.into(),
            query: Vec::new(),
            body,
        }
    }

    /// A GET.
    pub fn get(path: impl Into<String>, query: Vec<(&'static str, String)>) -> Request {
        Request {
            method: Method::Get,
            path: path.into(),
            query,
            body: None,
        }
    }

    /// Whether the path names an object by its number.
    pub fn names_object(&self) -> bool {
        let mut parts = self.path.split('/');
        parts.any(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
    }
}

/// The methods in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// GET
    Get,
    /// POST
    Post,
}

impl Method {
    /// The word in the request line.
    pub fn as_str(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Post => "POST",
        }
    }
}
