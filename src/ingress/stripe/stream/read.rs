//! `XREAD`, `XREADGROUP`: what is there already is read segment by segment; what is to come, comes to the open segment.

use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

use super::super::{NULL, Steps, native, role_of, sound, whole};
use super::entries::{Between, entries_between};
use super::{NO_ID, array_of, with_clients_names};
use crate::command::decide::last_stream_id;
use crate::command::number::{StreamId, integer};
use crate::command::parts::wait_ms;
use crate::command::{Command, Special};
use crate::ingress::answer::NOT_AN_INTEGER;
use crate::ingress::blocking::{Blocked, deadline};
use crate::ingress::dispatch::Flow;
use crate::ingress::gather::elements;
use crate::ingress::procedure::{Procedure, Step, answer};
use crate::profile::Role;
use crate::request::Outcome;
use crate::resp::walk::{is_error, text};
use crate::resp::{encode, frame_of};
use crate::stripe::{Watch, names};
use crate::worker::{Core, Worker};

impl Worker {
    pub(super) fn read_streams(
        self: &Rc<Self>,
        core: &mut Core,
        id: u32,
        command: &Command,
        steps: Steps,
    ) -> Flow {
        let args = steps.args();
        let keys = match command.keys(&args) {
            Ok(keys) => keys,
            Err(error) => return self.reply(core, id, error.to_bytes()),
        };
        let waits = match command.timeout(&args).map(|timeout| wait_ms(timeout, &args)) {
            None => None,
            Some(Ok(ms)) => Some(deadline(ms)),
            Some(Err(error)) => return self.reply(core, id, error.to_bytes()),
        };
        let reads = match Reads::of(
            &steps,
            command.special,
            keys.iter().map(|&key| key as usize),
            waits,
        ) {
            Ok(reads) => reads,
            Err(line) => return self.refuse(core, id, line),
        };
        let blocked = Rc::<Blocked>::default();
        let rule = command.downgrade(args.len());
        let handle = blocked.clone();
        let flow = self.proceed(core, id, rule, move |mut p| async move {
            let outcome = match reads.execute(&mut p, &steps, handle).await {
                Ok(outcome) | Err(outcome) => with_clients_names(outcome),
            };
            p.with_client(|client, _| client.blocked = None);
            (p, outcome)
        });
        match waits {
            Some(_) => self.note_blocked(core, id, flow, blocked),
            None => flow,
        }
    }
}

/// What is read.
struct Reads {
    /// Each stream's place among the arguments, and behind what it is read; `None`: behind what is there now.
    streams: Vec<(usize, Option<Bytes>)>,
    /// The words in front of `STREAMS`, but for `COUNT` and `BLOCK`.
    head: Vec<Bytes>,
    group: Option<Bytes>,
    count: Option<i64>,
    /// Until when it waits, if it does, and if not for ever.
    waits: Option<Option<Instant>>,
}

impl Reads {
    fn of(
        steps: &Steps,
        special: Special,
        keys: impl Iterator<Item = usize>,
        waits: Option<Option<Instant>>,
    ) -> Result<Self, &'static str> {
        let args = steps.args();
        let word = |at: usize| steps.frame.slice_ref(args.arg(at));
        let keys: Vec<usize> = keys.collect();
        let first = keys.first().copied().unwrap_or(args.len());
        let mut reads = Self {
            streams: Vec::new(),
            head: vec![word(0)],
            group: None,
            count: None,
            waits,
        };
        let mut at = 1;
        while at + 1 < first {
            match args.arg(at).to_ascii_uppercase().as_slice() {
                b"COUNT" => {
                    let count = integer(args.arg(at + 1)).ok_or(NOT_AN_INTEGER)?;
                    reads.count = (count > 0).then_some(count);
                    at += 1;
                }
                b"BLOCK" => at += 1,
                b"GROUP" => {
                    reads.head.extend([word(at), word(at + 1), word(at + 2)]);
                    reads.group = Some(word(at + 1));
                    at += 2;
                }
                _ => reads.head.push(word(at)),
            }
            at += 1;
        }
        for &key in &keys {
            let id = args.arg(key + keys.len());
            reads.streams.push((
                key,
                match id {
                    b"$" if special == Special::Xread => None,
                    b">" if special == Special::Xreadgroup => Some(Bytes::from_static(b">")),
                    id if StreamId::parse(id).is_some() => Some(steps.frame.slice_ref(id)),
                    b"$" => return Err(NOT_BY_GROUP),
                    b">" => return Err(ONLY_BY_GROUP),
                    _ => return Err(NO_ID),
                },
            ));
        }
        Ok(reads)
    }

    async fn execute(&self, p: &mut Procedure, steps: &Steps, blocked: Rc<Blocked>) -> Step<Outcome> {
        let args = steps.args();
        // As it is when the command comes, for however long it waits.
        let mut streams: Vec<(usize, Bytes)> = Vec::new();
        for (at, id) in &self.streams {
            let id = match id {
                Some(id) => id.clone(),
                None => last_of(p, steps, args.arg(*at)).await?,
            };
            streams.push((*at, id));
        }
        loop {
            let mut changes = steps.stripes.changes();
            let open = self.in_open_segments(p, steps, &mut changes);
            // Where all are whole, who waits looks at them itself.
            let looks_first = self.waits.is_none() || open.as_ref().is_none_or(|(_, all_single)| !all_single);
            self.check_groups(p, steps).await?;
            if looks_first {
                let mut news = Vec::new();
                for (at, id) in &streams {
                    let key = args.arg(*at);
                    let found = self.look(p, steps, key, id).await?;
                    if !found.is_empty() || &id[..] != b">" && self.group.is_some() {
                        news.push((key, array_of(found.iter().map(|entry| &entry[..]))));
                    }
                }
                if !news.is_empty() {
                    return Ok(answer(map_of(&news)));
                }
            }
            let Some(until) = self.waits else {
                return Ok(answer(NULL));
            };
            let Some((names, _)) = open else { continue };
            let ids: Vec<&[u8]> = streams.iter().map(|(_, id)| &id[..]).collect();
            let count = self.count.unwrap_or(0).to_string();
            let mut words: Vec<&[u8]> = self.head.iter().map(|word| &word[..]).collect();
            words.extend([&b"COUNT"[..], count.as_bytes(), b"BLOCK", b"0", b"STREAMS"]);
            words.extend(names.iter().map(|key| &key[..]));
            words.extend(ids);
            let (frame, spans) = frame_of(&words);
            let waiting = p.worker.waiting_as(&frame, &spans, until, &blocked);
            match waiting.map_err(answer)?.until_moved(p, changes).await? {
                Outcome::MayCome => {}
                Outcome::Reply { frames, .. } if !is_error(&frames) && elements(&frames).next().is_some() => {
                    let pairs: Vec<&[u8]> = elements(&frames).collect();
                    let named = pairs.chunks_exact(2).filter_map(|pair| {
                        let name = text(pair.first()?)?;
                        Some((
                            names::of_client(name).unwrap_or(name),
                            frames.slice_ref(pair.get(1)?),
                        ))
                    });
                    return Ok(answer(map_of(&named.collect::<Vec<_>>())));
                }
                other => return Ok(other),
            }
        }
    }

    /// What the streams' open segments are called, and whether they have no others; `None` if that is not known at the moment.
    fn in_open_segments(
        &self,
        p: &Procedure,
        steps: &Steps,
        changes: &mut Watch,
    ) -> Option<(Vec<Bytes>, bool)> {
        let args = steps.args();
        let keyspace = &p.worker.shared().keyspace;
        let mut all_single = true;
        let mut names = Vec::new();
        for (at, _) in &self.streams {
            let key = args.arg(*at);
            names.push(match role_of(keyspace, key) {
                Role::Stream => {
                    let queue = steps.stripes.queue(steps.db, key);
                    let _inside = queue.enter()?;
                    let directory = queue.directory()?;
                    changes.see(&queue, &directory);
                    all_single &= directory.is_single();
                    names::segment(directory.open(), key)
                }
                _ => Bytes::copy_from_slice(key),
            });
        }
        Some((names, all_single))
    }

    /// Nothing is delivered from any of several streams if one of them has not the group.
    async fn check_groups(&self, p: &Procedure, steps: &Steps) -> Step<()> {
        let Some(group) = self.group.as_deref().filter(|_| self.streams.len() > 1) else {
            return Ok(());
        };
        for (at, _) in &self.streams {
            let key = steps.args().arg(*at);
            let name = open_segment(p, steps, key).await?;
            let call = frame_of(&[&b"XPENDING"[..], &name, group]);
            let reply = native(p, p.worker.shared().keyspace.partition_of(&name), &call).await?;
            if reply.starts_with(b"-NOGROUP") {
                let mut line = b"-NOGROUP No such key '".to_vec();
                line.extend_from_slice(key);
                line.extend_from_slice(b"' or consumer group '");
                line.extend_from_slice(group);
                line.extend_from_slice(b"' in XREADGROUP with GROUP option\r\n");
                return Err(answer(line));
            }
            sound(reply)?;
        }
        Ok(())
    }

    /// What a stream has that is to be read.
    async fn look(&self, p: &Procedure, steps: &Steps, key: &[u8], id: &[u8]) -> Step<Vec<Bytes>> {
        let keyspace = &p.worker.shared().keyspace;
        if role_of(keyspace, key) != Role::Stream {
            let found = self
                .ask(p, keyspace.partition_of(key), key, id, self.count)
                .await?;
            return Ok(found);
        }
        if self.group.is_none() {
            let behind = StreamId::parse(id).and_then(StreamId::next);
            return match behind {
                Some(from) => {
                    let ids = Between {
                        from: from.into(),
                        to: u128::MAX,
                    };
                    entries_between(p, steps, key, ids, false, self.count).await
                }
                None => Ok(Vec::new()),
            };
        }
        let queue = steps.stripes.queue(steps.db, key);
        let inside = queue.entered().await;
        let Some(directory) = queue.directory() else {
            drop(inside);
            whole(p, steps, key).await?.finish();
            return Box::pin(self.look(p, steps, key, id)).await;
        };
        let group = self.group.as_deref().unwrap_or_default();
        let is_new = id == b">";
        let first = match StreamId::parse(id) {
            Some(id) => directory.place_of(u128::from(id).saturating_add(1)),
            None => {
                let cursor = queue.cursor(group);
                let at = directory.segments().position(|s| Some(s.number) == cursor);
                at.unwrap_or(0)
            }
        };
        let mut left = self.count;
        let mut found = Vec::new();
        for segment in directory.segments().skip(first) {
            let name = names::segment(segment, key);
            let here = match self.ask(p, segment.partition, &name, id, left).await {
                Ok(here) => here,
                // What was delivered is told, whatever comes then.
                Err(_) if !found.is_empty() => break,
                Err(end) => return Err(end),
            };
            let is_enough = left.is_some_and(|left| here.len() as i64 >= left);
            left = left.map(|left| left - here.len() as i64);
            found.extend(here);
            if is_enough {
                break;
            }
            if is_new && segment != directory.open() {
                // It gets no more entries, and all it has were delivered.
                queue.put_cursor(group, segment.number.wrapping_add(1));
            }
        }
        Ok(found)
    }

    /// Asks for one key's entries.
    async fn ask(
        &self,
        p: &Procedure,
        partition: crate::request::PartitionId,
        key: &[u8],
        id: &[u8],
        count: Option<i64>,
    ) -> Step<Vec<Bytes>> {
        let mut words: Vec<&[u8]> = self.head.iter().map(|word| &word[..]).collect();
        let count = count.map(|count| count.to_string());
        if let Some(count) = &count {
            words.extend([&b"COUNT"[..], count.as_bytes()]);
        }
        words.extend([&b"STREAMS"[..], key, id]);
        let reply = sound(native(p, partition, &frame_of(&words)).await?)?;
        let entries = elements(&reply).nth(1).unwrap_or_default();
        Ok(elements(entries).map(|entry| reply.slice_ref(entry)).collect())
    }
}

const NOT_BY_GROUP: &str = "ERR The $ ID is meaningless in the context of XREADGROUP: you want to read the history of this consumer by \
                            specifying a proper ID, or use the > ID to get new messages. The $ ID would just return an empty result set.";

const ONLY_BY_GROUP: &str =
    "ERR The > ID can be specified only when calling XREADGROUP using the GROUP <group> <consumer> option.";

fn map_of(news: &[(&[u8], Bytes)]) -> Bytes {
    let mut out = BytesMut::new();
    encode::header(&mut out, b'%', news.len());
    for (key, entries) in news {
        encode::bulk(&mut out, key);
        out.extend_from_slice(entries);
    }
    out.freeze()
}

/// What nodes call a stream's open segment; or a key that is no such stream.
async fn open_segment(p: &Procedure, steps: &Steps, key: &[u8]) -> Step<Bytes> {
    if role_of(&p.worker.shared().keyspace, key) != Role::Stream {
        return Ok(Bytes::copy_from_slice(key));
    }
    let queue = steps.stripes.queue(steps.db, key);
    loop {
        if let Some(directory) = queue.directory() {
            return Ok(names::segment(directory.open(), key));
        }
        whole(p, steps, key).await?.finish();
    }
}

/// A stream's last id.
async fn last_of(p: &Procedure, steps: &Steps, key: &[u8]) -> Step<Bytes> {
    let name = open_segment(p, steps, key).await?;
    let call = frame_of(&[&b"XINFO"[..], b"STREAM", &name]);
    let info = native(p, p.worker.shared().keyspace.partition_of(&name), &call).await?;
    let last = match is_error(&info) {
        true => StreamId::default(),
        false => last_stream_id(&info).unwrap_or_default(),
    };
    Ok(last.to_string().into())
}
