//! What a node says of itself (`INFO`), and what that makes of the pool.
//!
//! Every key is on R nodes, so what the nodes hold together is divided by R: that is right while all copies are there, and a
//! good estimate else. It is as old as the last look at the nodes, a second at most.

use std::collections::BTreeMap;

/// What is to be said of a node that [forgets](NodeInfo::forgets).
pub const FORGETS: &str = "keeps no append-only file: when its server is started again it has lost what it has, or goes on from an old snapshot. \
                           CONFIG SET appendonly yes, and the same in its configuration file";

/// What is read of one node's `INFO`.
#[derive(Clone, Debug, Default)]
pub struct NodeInfo {
    /// Memory its data uses, and its process, and at most until now, in bytes.
    pub memory_used: u64,
    /// What of it are keys and values.
    pub memory_data: u64,
    /// See `memory_used`.
    pub memory_rss: u64,
    /// See `memory_used`.
    pub memory_peak: u64,
    /// `maxmemory`; 0 is none.
    pub memory_max: u64,
    /// Whether it is a replica of another server.
    pub is_replica: bool,
    /// Whether it keeps an append-only file.
    pub append_only: bool,
    /// Whether its last write to its files succeeded.
    pub files_well: bool,
    /// When it last saved a snapshot, Unix s.
    pub last_save_s: i64,
    /// Changes since.
    pub unsaved: u64,
    /// Keys that have expired, reads that found a key, reads that did not.
    pub expired: u64,
    /// See `expired`.
    pub hits: u64,
    /// See `expired`.
    pub misses: u64,
    /// Of each database: keys, keys that will expire, and the mean of the time they have, in ms.
    pub keyspace: BTreeMap<u16, [u64; 3]>,
}

impl NodeInfo {
    /// Whether the node, which has been looked at, would not have everything after it was started again.
    pub fn forgets(&self) -> bool {
        self.memory_used > 0 && !self.append_only
    }

    /// Reads the text of `INFO`.
    pub fn parse(text: &str) -> Self {
        let mut info = Self {
            files_well: true,
            ..Self::default()
        };
        for (name, value) in text.lines().filter_map(|line| line.trim_end().split_once(':')) {
            let number = || value.parse().unwrap_or_default();
            match name {
                "used_memory" => info.memory_used = number(),
                "used_memory_dataset" => info.memory_data = number(),
                "used_memory_rss" => info.memory_rss = number(),
                "used_memory_peak" => info.memory_peak = number(),
                "role" => info.is_replica = value != "master",
                "maxmemory" => info.memory_max = number(),
                "aof_enabled" => info.append_only = value == "1",
                "aof_last_write_status" | "rdb_last_bgsave_status" => info.files_well &= value == "ok",
                "rdb_last_save_time" => info.last_save_s = value.parse().unwrap_or_default(),
                "rdb_changes_since_last_save" => info.unsaved = number(),
                "expired_keys" => info.expired = number(),
                "keyspace_hits" => info.hits = number(),
                "keyspace_misses" => info.misses = number(),
                _ => {
                    if let Some(db) = name.strip_prefix("db").and_then(|db| db.parse().ok()) {
                        info.keyspace.insert(db, numbers(value));
                    }
                }
            }
        }
        info
    }

    /// What the pool holds, of its nodes and the number of copies, without the bookkeeping database.
    pub fn of_pool(nodes: &[Self], copies: u64, bookkeeping_db: u16) -> Self {
        let copies = copies.max(1);
        let sum = |of: fn(&Self) -> u64| nodes.iter().map(of).sum::<u64>();
        let limited = nodes.iter().all(|node| node.memory_max > 0);
        let mut keyspace: BTreeMap<u16, [u64; 3]> = BTreeMap::new();
        for (db, [keys, expires, ttl]) in nodes.iter().flat_map(|node| &node.keyspace) {
            let [all_keys, all_expires, all_ttls] = keyspace.entry(*db).or_default();
            *all_keys += keys;
            *all_expires += expires;
            *all_ttls += ttl * expires;
        }
        keyspace.remove(&bookkeeping_db);
        for [keys, expires, ttl] in keyspace.values_mut() {
            *ttl /= (*expires).max(1);
            *keys = keys.div_ceil(copies);
            *expires = expires.div_ceil(copies);
        }
        Self {
            memory_used: sum(|n| n.memory_used) / copies,
            memory_data: sum(|n| n.memory_data) / copies,
            memory_rss: sum(|n| n.memory_rss) / copies,
            memory_peak: sum(|n| n.memory_peak) / copies,
            memory_max: if limited {
                sum(|n| n.memory_max) / copies
            } else {
                0
            },
            is_replica: false,
            append_only: nodes.iter().all(|n| n.append_only),
            files_well: nodes.iter().all(|n| n.files_well),
            last_save_s: nodes.iter().map(|n| n.last_save_s).min().unwrap_or_default(),
            unsaved: sum(|n| n.unsaved) / copies,
            expired: sum(|n| n.expired) / copies,
            // A read is asked of one node.
            hits: sum(|n| n.hits),
            misses: sum(|n| n.misses),
            keyspace,
        }
    }
}

/// `keys=1,expires=0,avg_ttl=0`.
fn numbers(value: &str) -> [u64; 3] {
    let field = |name: &str| {
        let found = value
            .split(',')
            .find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
        found.and_then(|number| number.parse().ok()).unwrap_or_default()
    };
    [field("keys"), field("expires"), field("avg_ttl")]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_holds_what_its_nodes_hold_divided_by_the_copies() {
        let text = "# Memory\r\nused_memory:900\r\nmaxmemory:1200\r\naof_enabled:1\r\n\
                    db0:keys=20,expires=10,avg_ttl=500\r\ndb15:keys=2,expires=0,avg_ttl=0\r\n";
        let node = NodeInfo::parse(text);
        assert_eq!(node.keyspace[&0], [20, 10, 500]);
        let pool = NodeInfo::of_pool(&[node.clone(), node.clone(), node.clone()], 2, 15);
        assert_eq!(
            (pool.memory_used, pool.memory_max, pool.append_only),
            (1350, 1800, true)
        );
        assert_eq!(pool.keyspace, BTreeMap::from([(0, [30, 15, 500])]));
        let unlimited = NodeInfo::parse("maxmemory:0\r\naof_last_write_status:err\r\n");
        let pool = NodeInfo::of_pool(&[node, unlimited], 1, 15);
        assert_eq!(
            (pool.memory_max, pool.append_only, pool.files_well),
            (0, false, false)
        );
    }
}
