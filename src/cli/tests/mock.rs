//! An admin port that answers from a script, and remembers what it was asked.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::sync::oneshot;

/// What is answered.
#[derive(Debug, Clone)]
pub(super) enum Answer {
    Json(Value),
    No(u16, &'static str),
    /// Any text with status 200 (or another).
    Text(u16, &'static str),
    /// Dies in the middle of its answer.
    HangUp,
}

/// One request: `POST /v1/nodes`, and its body.
pub(super) type Asked = (String, Value);

#[derive(Default)]
struct Script {
    answers: HashMap<String, Vec<Answer>>,
    asked: Vec<Asked>,
}

type Shared = Arc<Mutex<Script>>;

/// See the module. Ends when it is dropped.
pub(super) struct Mock {
    script: Shared,
    admin: String,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Mock {
    /// Answers nothing yet.
    pub(super) fn start() -> Self {
        let script = Shared::default();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let admin = listener.local_addr().unwrap().to_string();
        let (end, ended) = oneshot::channel();
        let app = Router::new().fallback(answer).with_state(script.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                tokio::select! {
                    result = axum::serve(listener, app) => result.unwrap(),
                    _ = ended => {}
                }
            });
        });
        Self {
            script,
            admin,
            end: Some(end),
            thread: Some(thread),
        }
    }

    /// Answers `request` (`GET /v1/nodes`) with these, one after the other; the last one again and again.
    pub(super) fn on(self, request: &str, answers: impl IntoIterator<Item = Answer>) -> Self {
        let mut answers: Vec<Answer> = answers.into_iter().collect();
        answers.reverse();
        self.script
            .lock()
            .unwrap()
            .answers
            .insert(request.to_owned(), answers);
        self
    }

    pub(super) fn admin(&self) -> &str {
        &self.admin
    }

    /// What it was asked.
    pub(super) fn asked(&self) -> Vec<Asked> {
        self.script.lock().unwrap().asked.clone()
    }
}

impl Drop for Mock {
    fn drop(&mut self) {
        drop(self.end.take());
        self.thread.take().unwrap().join().unwrap();
    }
}

async fn answer(State(script): State<Shared>, method: Method, uri: Uri, body: Bytes) -> Response {
    let request = format!("{method} {uri}");
    let body = if body.is_empty() {
        Value::Null
    } else {
        serde_json::from_slice(&body).unwrap_or_else(|_| json!("not JSON"))
    };
    let answer = {
        let mut script = script.lock().unwrap();
        script.asked.push((request.clone(), body));
        match script.answers.get_mut(&request) {
            None => Answer::No(404, "no such path"),
            Some(answers) if answers.len() > 1 => answers.pop().unwrap(),
            Some(answers) => answers[0].clone(),
        }
    };
    match answer {
        Answer::Json(value) => axum::Json(value).into_response(),
        Answer::No(status, why) => (
            StatusCode::from_u16(status).unwrap(),
            axum::Json(json!({"error": why})),
        )
            .into_response(),
        Answer::Text(status, text) => (StatusCode::from_u16(status).unwrap(), text).into_response(),
        Answer::HangUp => {
            let parts = [
                Ok(Bytes::from("{\"half\": ")),
                Err(std::io::Error::other("killed")),
            ];
            Body::from_stream(futures::stream::iter(parts)).into_response()
        }
    }
}
