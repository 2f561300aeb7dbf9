//! What is kept on nodes and on disk: accounts, the table, the configuration file.

use bytes::BytesMut;
use ringfence::account::{self as format, Position, Touch};
use ringfence::config::Config;
use ringfence::limits;
use ringfence::pool::table::Table;

/// What is read comes back as it was.
pub fn account(data: &[u8]) {
    if let Some(records) = format::parse_touched(data) {
        let mut again = BytesMut::new();
        for record in &records {
            let what = match &record.what {
                Touch::Key(key) => Touch::Key(&key[..]),
                Touch::Nothing => Touch::Nothing,
                Touch::Partition => Touch::Partition,
            };
            format::put_touched(&mut again, record.partition, record.db, record.seq, what);
        }
        assert_eq!(&again[..], data);
    }
    if let Some(position) = Position::parse(data) {
        let mut bulk = BytesMut::new();
        position.put(&mut bulk);
        let text = bulk[..]
            .split(|&byte| byte == b'\n')
            .nth(1)
            .and_then(|line| line.strip_suffix(b"\r"));
        assert_eq!(Position::parse(text.expect("a bulk string")), Some(position));
    }
}

/// A table that is taken names only nodes that it has, and comes back as it was.
pub fn table(data: &[u8]) {
    let Some(table) = Table::parse(data) else { return };
    assert!((1..=limits::PARTITIONS_MAX).contains(&usize::from(table.partitions())));
    for row in &table.rows {
        assert!(
            row.replicas
                .iter()
                .all(|&node| usize::from(node) < table.nodes.len())
        );
        assert!((1..=8).contains(&row.replicas.len()));
        assert!(u32::from(row.in_sync) < 1 << row.replicas.len());
    }
    for node in 0..table.nodes.len() as u16 {
        assert!(
            table
                .partitions_of(node)
                .all(|(partition, _)| partition < table.partitions())
        );
    }
    assert_eq!(Table::parse(&table.to_json()), Some(table));
}

/// A file that is taken keeps the rules; one that is not says why.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let config = match Config::parse(text) {
        Ok(config) => config,
        Err(mistakes) => {
            assert!(!mistakes.is_empty());
            let lines = text.lines().count().max(1);
            for mistake in mistakes {
                assert!(
                    mistake.line.is_none_or(|line| (1..=lines + 1).contains(&line)),
                    "{mistake}"
                );
                assert!(!mistake.message.is_empty());
            }
            return;
        }
    };
    let pool = &config.pool;
    assert!(config.threads > 0);
    assert!(
        1 <= pool.write_quorum && pool.write_quorum <= pool.min_in_sync && pool.min_in_sync <= pool.replicas
    );
    assert!(pool.replicas <= config.nodes.len() && pool.replicas <= limits::REPLICAS_MAX);
    assert!(pool.partitions > 0 && usize::from(pool.partitions) <= limits::PARTITIONS_MAX);
    assert!(config.nodes.len() <= limits::NODES_MAX);
    assert!(pool.bookkeeping_db > 0);
    assert!(config.listen.tcp.is_some() || config.listen.unix.is_some());
    assert!(config.limits.command_max.as_u64() > 0 && config.limits.batch_commands_max > 0);
}
