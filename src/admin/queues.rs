//! `/v1/queues`: the queues that are spread over nodes, as far as this sidecar has seen them, with their segments.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;

use super::{Admin, Unavailable};
use crate::command::number::StreamId;

#[derive(Serialize)]
pub(super) struct QueueEntry {
    key: String,
    db: u16,
    segments: Vec<SegmentEntry>,
}

/// A segment; the last one of a queue is open.
#[derive(Serialize)]
struct SegmentEntry {
    number: u16,
    partition: u16,
    #[serde(flatten)]
    before: Before,
    /// Of a list, or a stream: how many entries it has, at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    length: Option<u64>,
    nodes: Vec<String>,
}

/// What is before a segment.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Before {
    /// Of an index: how many entries were appended. (Of a list: nothing, 0.)
    Base(u64),
    /// Of a stream: the last id. No number: JSON's readers have 53 bits.
    Behind(String),
}

impl Before {
    /// Counts are small, and ids begin with a time.
    fn of(base: u128) -> Self {
        match u64::try_from(base) {
            Ok(count) => Self::Base(count),
            Err(_) => Self::Behind(StreamId::from(base).to_string()),
        }
    }
}

pub(super) async fn queues(State(admin): State<Arc<Admin>>) -> Result<Json<Vec<QueueEntry>>, Unavailable> {
    let shared = admin.open()?;
    let table = shared.table.load();
    let nodes_of = |partition: u16| -> Vec<String> {
        let row = table.rows.get(usize::from(partition));
        let nodes = row.into_iter().flat_map(|row| &row.replicas);
        nodes
            .filter_map(|&node| Some(table.nodes.get(usize::from(node))?.name.clone()))
            .collect()
    };
    let known = shared.stripes.as_ref().map(|stripes| stripes.known_queues());
    let entries = known
        .unwrap_or_default()
        .into_iter()
        .map(|(db, key, directory, lengths)| QueueEntry {
            key: String::from_utf8_lossy(&key).into_owned(),
            db,
            segments: directory
                .segments()
                .map(|segment| SegmentEntry {
                    number: segment.number,
                    partition: segment.partition,
                    before: Before::of(segment.base),
                    length: lengths.as_ref().map(|lengths| lengths.of(segment.number)),
                    nodes: nodes_of(segment.partition),
                })
                .collect(),
        });
    Ok(Json(entries.collect()))
}
