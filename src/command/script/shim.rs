//! Scripts whose effect could differ from node to node, made equal everywhere.
//!
//! Running such a script on one node and copying what it did would cost a round trip and a hold of the partition. Instead
//! every node runs it at the same place of the order, with a few lines of Lua in front (`shim.lua`) that stand between the
//! script and `redis`: whatever depends on a clock, on chance or on an undefined order is computed from the pool's time,
//! which the owner of the command gives as one more argument. So the effect is a function of the data and the arguments.
//!
//! The lines are joined into one and put on the script's first line, so that its errors name the right lines.

use bytes::Bytes;

use super::super::frame::FrameWriter;
use crate::resp::Args;

const SHIM: &str = include_str!("shim.lua");

/// The script with the shim in front, behind its `#!` line if it has one.
pub fn shimmed(text: &[u8]) -> Vec<u8> {
    let head = if text.starts_with(b"#!") {
        text.iter()
            .position(|&b| b == b'\n')
            .map_or(text.len(), |end| end + 1)
    } else {
        0
    };
    let (first, rest) = text.split_at_checked(head).unwrap_or((b"", text));
    let lines = SHIM.lines().map(str::trim).filter(|line| !line.starts_with("--"));
    let mut out = Vec::with_capacity(text.len() + SHIM.len());
    out.extend_from_slice(first);
    for line in lines {
        out.extend_from_slice(line.as_bytes());
        out.push(b' ');
    }
    out.extend_from_slice(rest);
    out
}

/// An `EVAL` or `EVALSHA` as the call of the shimmed script of digest `sha_hex`, at the pool's time.
pub fn call(args: &Args<'_>, sha_hex: &str, read_only: bool, now_ms: u64) -> Bytes {
    let payload: usize = args.iter().map(<[u8]>::len).sum();
    let name: &[u8] = if read_only { b"EVALSHA_RO" } else { b"EVALSHA" };
    FrameWriter::new(name, payload + 80)
        .arg(sha_hex.as_bytes())
        .args(args.iter().skip(2))
        .number(now_ms)
        .finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testserver::{Server, words};

    /// Runs a shimmed script on a server that has some data.
    fn run(server: &Server, text: &str, now_ms: &str) -> Vec<u8> {
        let script = shimmed(text.as_bytes());
        let mut client = server.client(3);
        client.line("DEL {t}s {t}k {t}l {t}x {t}h");
        client.line("SADD {t}s a b c d e f g");
        let mut args = words("EVAL x 5 {t}s {t}k {t}l {t}x {t}h");
        args[1] = script;
        args.push(now_ms.as_bytes().to_vec());
        client.call(&args)
    }

    #[test]
    fn two_servers_do_the_same_at_different_times() {
        let servers = [Server::start(), Server::start()];
        for script in [
            "return redis.call('TIME')",
            "redis.call('SET', KEYS[2], 1, 'EX', 1000) return redis.call('PEXPIRETIME', KEYS[2])",
            "redis.call('SETEX', KEYS[2], 1000, 1) return redis.call('PEXPIRETIME', KEYS[2])",
            "redis.call('SET', KEYS[2], 1) redis.call('EXPIRE', KEYS[2], 7, 'NX') return redis.call('PEXPIRETIME', KEYS[2])",
            "redis.call('SET', KEYS[2], 1, 'PX', 900000) return redis.call('PTTL', KEYS[2])",
            "return redis.call('SPOP', KEYS[1])",
            "redis.call('SPOP', KEYS[1], 3) return redis.call('SMEMBERS', KEYS[1])",
            "return redis.call('SRANDMEMBER', KEYS[1], -20)",
            "for _, m in ipairs(redis.call('SMEMBERS', KEYS[1])) do redis.call('RPUSH', KEYS[3], m) end return redis.call('LRANGE', KEYS[3], 0, -1)",
            "return redis.call('XADD', KEYS[4], 'MAXLEN', '~', 5, '*', 'f', 'v')",
            "redis.call('XADD', KEYS[4], '99999999999999-5', 'f', 'v') return redis.call('XADD', KEYS[4], '*', 'f', 'v')",
            "return tostring({}) .. tostring(1.5)",
            "local c = 'ti' return redis.call(c .. 'me')",
            "return redis.pcall('FLUSHALL')",
            "return #ARGV",
        ] {
            let replies: Vec<Vec<u8>> = servers.iter().map(|s| run(s, script, "1900000000123")).collect();
            assert_eq!(
                replies[0],
                replies[1],
                "{script}: {}",
                String::from_utf8_lossy(&replies[0])
            );
            let failed = replies[0].starts_with(b"-") && !script.contains("FLUSHALL");
            assert!(!failed, "{script}: {}", String::from_utf8_lossy(&replies[0]));
        }
        assert_eq!(
            run(&servers[0], "return redis.call('TIME')[2]", "1900000000123"),
            b"$6\r\n123000\r\n"
        );
        assert_eq!(run(&servers[0], "return #ARGV", "1"), b":0\r\n");
    }

    #[test]
    fn a_script_keeps_its_first_line_and_its_line_numbers() {
        let text = shimmed(b"#!lua flags=no-writes\nreturn 1");
        assert!(text.starts_with(b"#!lua flags=no-writes\nlocal redis"));
        assert_eq!(text.iter().filter(|&&b| b == b'\n').count(), 1);
    }
}
