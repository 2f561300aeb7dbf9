//! Looking a node over before it is used: what would silently break a promise is refused with a sentence.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use redis_protocol::resp3::types::BytesFrame;
use thiserror::Error;

use super::control::{Control, ControlError, is_error, pairs_of, text_of};
use super::copy::databases_in;
use crate::account;

/// Oldest server that has what is needed: `GETEX`, `PXAT`, ACL rules per key and channel.
const VERSION_MIN: (u64, u64) = (6, 2);

/// A clock further off than this from the sidecar's is certainly wrong: expiries would be too.
const CLOCK_OFFSET_MAX: Duration = Duration::from_secs(30);

/// What is known of a node that passed.
#[derive(Clone, Debug)]
pub struct Facts {
    /// `redis_version`, or `valkey_version` where there is one.
    pub version: String,
    /// Changes with every start of the server process.
    pub run_id: String,
    /// The node's clock minus the sidecar's, in ms.
    pub clock_offset_ms: i64,
    /// How many logical databases it has.
    pub databases: u16,
    /// Those of them that have keys, but for the bookkeeping database.
    pub in_use: BTreeSet<u16>,
    /// The reply to `COMMAND`.
    pub commands: Bytes,
}

/// Databases, for a sentence.
pub fn listed(databases: &BTreeSet<u16>) -> String {
    let all: Vec<String> = databases.iter().map(u16::to_string).collect();
    all.join(", ")
}

/// Why a node cannot be used, and what to do about it.
#[derive(Debug, Error)]
pub enum CheckFailure {
    /// It does not answer; it may yet.
    #[error("cannot be reached: {0}. Start it, or correct its address in proxy.toml")]
    Unreachable(#[from] ControlError),
    /// It will do, once it has its data.
    #[error("is still loading its data: it is used when it has")]
    Loading,
    /// It will not do as it is.
    #[error("{0}")]
    Unfit(String),
}

impl CheckFailure {
    fn unfit(text: impl Into<String>) -> Self {
        Self::Unfit(text.into())
    }
}

/// Checks the node behind `control`, which is logged in as the operator's account.
pub async fn look_over(control: &mut Control, bookkeeping_db: u16) -> Result<Facts, CheckFailure> {
    let info = ask(control, &[b"INFO"], "+info").await?;
    let info = text_of(&info);
    let field = |name: &str| {
        info.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .unwrap_or_default()
            .trim()
    };
    let mut in_use = databases_in(&info);
    in_use.remove(&bookkeeping_db);
    let version = field("redis_version").to_owned();
    if numbers(&version) < VERSION_MIN {
        return Err(CheckFailure::unfit(format!(
            "runs version {version}, and at least 6.2 is needed: upgrade the server"
        )));
    }
    // Valkey 9 has another name for it.
    let modes = [field("redis_mode"), field("server_mode")];
    if let Some(mode) = modes.iter().find(|mode| !["", "standalone"].contains(mode)) {
        return Err(CheckFailure::unfit(format!(
            "runs in {mode} mode: the pool does its own sharding and mirroring, so start the server with \
             \"cluster-enabled no\" and not as a sentinel"
        )));
    }
    if field("role") != "master" {
        return Err(CheckFailure::unfit(
            "is a replica of another server: make it a server of its own with REPLICAOF NO ONE, and take \
             \"replicaof\" out of its configuration",
        ));
    }
    if field("loading") == "1" {
        return Err(CheckFailure::Loading);
    }
    let policy = field("maxmemory_policy");
    if policy != "noeviction" && !policy.is_empty() {
        return Err(CheckFailure::unfit(format!(
            "has maxmemory-policy {policy}, under which it throws data away by itself: set it to noeviction (CONFIG \
             SET maxmemory-policy noeviction, and the same in its configuration file)"
        )));
    }
    let select = control
        .call_raw(&[b"SELECT", bookkeeping_db.to_string().as_bytes()])
        .await
        .map_err(lost)?;
    if is_error(&select) {
        return Err(CheckFailure::unfit(format!(
            "has no database {bookkeeping_db} ({}): set \"databases\" to at least {} in its configuration, or choose \
             another pool.bookkeeping_db",
            text_of(&select),
            bookkeeping_db + 1
        )));
    }
    may(control, &[b"GET", account::CLAIM], "read and write all keys").await?;
    may(control, &[b"ACL", b"WHOAMI"], "manage users (ACL)").await?;
    may(control, &[b"CLIENT", b"ID"], "manage connections (CLIENT)").await?;
    may(control, &[b"SCRIPT", b"EXISTS", b"0"], "load scripts").await?;
    let commands = control.call_bytes(&[b"COMMAND"]).await.map_err(lost)?;
    // 16 is the default of every version; an account may not be allowed to ask.
    let databases = match control.call(&[b"CONFIG", b"GET", b"databases"]).await {
        Ok(reply) => pairs_of(reply)
            .first()
            .and_then(|(_, n)| text_of(n).parse().ok())
            .unwrap_or(16),
        Err(ControlError::Refused(_)) => 16,
        Err(error) => return Err(lost(error)),
    };
    let clock_offset_ms = clock_offset_ms(control).await?;
    if clock_offset_ms.unsigned_abs() > CLOCK_OFFSET_MAX.as_millis() as u64 {
        return Err(CheckFailure::unfit(format!(
            "has a clock {clock_offset_ms} ms off from this host's: run NTP on both, keys would expire at wrong times"
        )));
    }
    Ok(Facts {
        version,
        run_id: field("run_id").to_owned(),
        clock_offset_ms,
        databases,
        in_use,
        commands,
    })
}

/// How often a node is asked for the time.
const CLOCK_ASKED: usize = 5;

/// The node's clock minus the sidecar's in ms: by the answer that came back soonest, taken in the middle of its round trip.
async fn clock_offset_ms(control: &mut Control) -> Result<i64, CheckFailure> {
    let mut soonest = (i64::MAX, 0);
    for _ in 0..CLOCK_ASKED {
        let before_us = unix_us();
        let reply = ask(control, &[b"TIME"], "+time").await?;
        let after_us = unix_us();
        let BytesFrame::Array { data, .. } = reply else {
            return Ok(0);
        };
        let number = |i: usize| {
            data.get(i)
                .and_then(|f| text_of(f).parse::<i64>().ok())
                .unwrap_or(0)
        };
        let there_us = number(0).saturating_mul(1_000_000).saturating_add(number(1));
        let offset_us = there_us.saturating_sub((before_us + after_us) / 2);
        soonest = soonest.min((after_us - before_us, offset_us));
    }
    let (_, offset_us) = soonest;
    Ok((offset_us + offset_us.signum() * 500) / 1000)
}

fn unix_us() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_micros() as i64)
}

async fn ask(control: &mut Control, args: &[&[u8]], right: &str) -> Result<BytesFrame, CheckFailure> {
    match control.call(args).await {
        Ok(frame) => Ok(frame),
        Err(ControlError::Refused(why)) if why.starts_with("LOADING") => Err(CheckFailure::Loading),
        Err(ControlError::Refused(why)) => Err(CheckFailure::unfit(format!(
            "refuses what the sidecar's account must be allowed to do ({right}): {why}. Check the node's user and \
             password in proxy.toml and the ACL rules on the node"
        ))),
        Err(other) => Err(lost(other)),
    }
}

async fn may(control: &mut Control, args: &[&[u8]], what: &str) -> Result<(), CheckFailure> {
    let reply = control.call_raw(args).await.map_err(lost)?;
    if is_error(&reply) && text_of(&reply).starts_with("NOPERM") {
        return Err(CheckFailure::unfit(format!(
            "does not let the sidecar's account {what}: {}. Give that user +@all ~* &*, or name another one in \
             proxy.toml",
            text_of(&reply)
        )));
    }
    Ok(())
}

fn lost(error: ControlError) -> CheckFailure {
    match error {
        ControlError::Refused(why) if why.starts_with("LOADING") => CheckFailure::Loading,
        error => CheckFailure::Unreachable(error),
    }
}

fn numbers(version: &str) -> (u64, u64) {
    let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert!(numbers("6.0.16") < VERSION_MIN);
        assert!(numbers("6.2.5") >= VERSION_MIN);
        assert!(numbers("10.1.0") >= VERSION_MIN);
        assert!(numbers("nonsense") < VERSION_MIN);
    }
}
