//! What is asked of a sidecar over its admin port: one request, one connection, one JSON document.

use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// `GET`s a document.
pub(crate) fn get(admin: SocketAddr, path: &str) -> Result<Value> {
    ask(admin, "GET", path, "").with_context(|| format!("GET {path}"))
}

/// `POST`s one.
pub(crate) fn post(admin: SocketAddr, path: &str, body: &Value) -> Result<Value> {
    ask(admin, "POST", path, &body.to_string()).with_context(|| format!("POST {path}"))
}

/// A number of a document; 0 where there is none.
pub(crate) fn number(document: &Value, pointer: &str) -> f64 {
    document.pointer(pointer).and_then(Value::as_f64).unwrap_or(0.0)
}

/// The value of a metric without labels; 0 where there is none.
pub(crate) fn metric(admin: SocketAddr, name: &str) -> Result<f64> {
    let (_, text) = exchange(admin, "GET", "/metrics", "")?;
    let mut lines = text.lines().filter_map(|line| line.split_once(' '));
    let value = lines.find(|(of, _)| *of == name).map(|(_, value)| value.trim());
    Ok(value.and_then(|value| value.parse().ok()).unwrap_or(0.0))
}

fn ask(admin: SocketAddr, method: &str, path: &str, body: &str) -> Result<Value> {
    let (status, text) = exchange(admin, method, path, body)?;
    match status {
        200 => Ok(serde_json::from_str(&text)?),
        _ => bail!("it is answered with {status}: {text}"),
    }
}

fn exchange(admin: SocketAddr, method: &str, path: &str, body: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&admin, ANSWER_WITHIN)?;
    stream.set_read_timeout(Some(ANSWER_WITHIN))?;
    let length = body.len();
    // Of HTTP/1.0, so that the answer comes in one piece and ends with the connection.
    let head = format!(
        "{method} {path} HTTP/1.0\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    );
    stream.write_all((head + body).as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, text) = answer
        .split_once("\r\n\r\n")
        .context("the answer has no end of its head")?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok((status.context("the answer has no status")?, text.to_owned()))
}
