//! Requests to the admin port, one connection each: a pooled one would be dead after each restart of the sidecar.

use std::io::ErrorKind;
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use ureq::Agent;
use ureq::http::{Method, Request, StatusCode};

use super::failure::Failure;
use super::words::printable;

/// For one request, from the connection to the last byte of the answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Largest answer, in bytes: a status of all nodes and jobs is a fraction of it.
const ANSWER_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// What may stand in a path as it is (RFC 3986, unreserved).
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// The path of something that belongs to a node.
pub(super) fn node_path(name: &str, rest: &str) -> String {
    format!("/v1/nodes/{}{rest}", utf8_percent_encode(name, UNRESERVED))
}

/// Asks one sidecar.
pub(super) struct Client {
    agent: Agent,
    admin: String,
}

/// What a sidecar has answered.
pub(super) struct Document {
    text: String,
    admin: String,
}

impl Document {
    /// The document as it came.
    pub(super) fn text(&self) -> &str {
        self.text.trim_end()
    }

    /// In one line. JSON has line ends only between its parts.
    pub(super) fn one_line(&self) -> String {
        self.text().replace(['\n', '\r'], " ")
    }

    pub(super) fn parse<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        serde_json::from_str(&self.text).map_err(|error| Failure::Foreign {
            admin: self.admin.clone(),
            why: error.to_string(),
        })
    }
}

#[derive(Deserialize)]
struct Refusal {
    error: String,
}

impl Client {
    /// `admin` is a host and a port.
    pub(super) fn new(admin: String) -> Self {
        let config = Agent::config_builder()
            .timeout_global(Some(TIMEOUT))
            .http_status_as_error(false)
            .max_redirects(0)
            .max_idle_connections(0)
            // The admin port is near; a proxy of the environment is for other things.
            .proxy(None)
            .user_agent(concat!("ringfence/", env!("CARGO_PKG_VERSION")))
            .build();
        Self {
            agent: config.new_agent(),
            admin,
        }
    }

    pub(super) fn admin(&self) -> &str {
        &self.admin
    }

    pub(super) fn get(&self, path: &str) -> Result<Document, Failure> {
        self.call(Method::GET, path, None)
    }

    pub(super) fn post(&self, path: &str, body: Option<&Value>) -> Result<Document, Failure> {
        self.call(Method::POST, path, body)
    }

    pub(super) fn patch(&self, path: &str, body: &Value) -> Result<Document, Failure> {
        self.call(Method::PATCH, path, Some(body))
    }

    pub(super) fn delete(&self, path: &str) -> Result<Document, Failure> {
        self.call(Method::DELETE, path, None)
    }

    fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Document, Failure> {
        let changes = method != Method::GET;
        let (status, text) = self
            .exchange(method, path, body)
            .map_err(|error| self.failure(&error, changes))?;
        let document = Document {
            text,
            admin: self.admin.clone(),
        };
        if status.is_success() {
            return Ok(document);
        }
        match serde_json::from_str::<Refusal>(document.text()) {
            Ok(refusal) if status == StatusCode::SERVICE_UNAVAILABLE => {
                Err(Failure::NotServing(printable(&refusal.error)))
            }
            Ok(refusal) => Err(Failure::Refused(printable(&refusal.error))),
            Err(_) => Err(Failure::Foreign {
                admin: self.admin.clone(),
                why: format!("HTTP {status} without a reason"),
            }),
        }
    }

    fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(StatusCode, String), ureq::Error> {
        let sends = method == Method::POST || method == Method::PATCH;
        let request = Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.admin));
        // Also without a body: by it a sidecar tells a change that is meant from one that a page in a browser sends.
        let request = request.header("content-type", "application/json");
        let mut response = match body {
            Some(body) => self.agent.run(request.body(body.to_string())?)?,
            None if sends => self.agent.run(request.body("")?)?,
            None => self.agent.run(request.body(())?)?,
        };
        let text = response
            .body_mut()
            .with_config()
            .limit(ANSWER_BYTES_MAX)
            .read_to_string()?;
        Ok((response.status(), text))
    }

    fn failure(&self, error: &ureq::Error, changes: bool) -> Failure {
        let admin = self.admin.clone();
        let (why, sent) = match error {
            ureq::Error::Timeout(_) => (format!("not within {} s", TIMEOUT.as_secs()), true),
            ureq::Error::HostNotFound => ("no such host".to_owned(), false),
            ureq::Error::ConnectionFailed => ("it cannot be connected to".to_owned(), false),
            ureq::Error::Io(error) => match error.kind() {
                ErrorKind::ConnectionRefused => ("connection refused".to_owned(), false),
                ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => (error.to_string(), false),
                _ => (error.to_string(), true),
            },
            error => {
                let why = error.to_string();
                return Failure::Foreign { admin, why };
            }
        };
        if changes && sent {
            Failure::Unanswered { admin, why }
        } else {
            Failure::Unreachable { admin, why }
        }
    }
}
