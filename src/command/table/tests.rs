//! The table against real servers, and against descriptions of servers that are not here.

use super::super::spec::{Class, Flags};
use super::*;
use crate::testserver::{Sent, Server, words};

fn error(table: &CommandTable, command: &[Vec<u8>]) -> String {
    let sent = Sent::new(command);
    table
        .lookup(&sent.args())
        .unwrap_err()
        .to_bytes()
        .escape_ascii()
        .to_string()
}

#[test]
fn errors_are_those_of_redis() {
    let server = Server::start();
    let mut client = server.client(2);
    let table = CommandTable::builtin();
    let mut commands: Vec<Vec<Vec<u8>>> = [
        "FOO",
        "foo a b",
        "''",
        "'' ''",
        "GET",
        "get a b",
        "client",
        "Client foo",
        "CLIENT SETNAME",
        "client setname a b",
        "xgroup create x",
        "XGROUP foo bar",
        "config get",
        "OBJECT",
        "Object Help x",
        "command foo",
        "COMMAND count x",
        "memory usage",
        "client ''",
        "fo%so %d %s",
        "client|list",
        "client|setname x",
        "config|get x",
        "set a",
        "xread streams a",
        "eval s",
        "cluster foo",
        "acl foo",
        "function foo",
        "getx",
        "gett",
    ]
    .map(words)
    .to_vec();
    for len in 120..=132 {
        commands.push(vec![
            b"foo".to_vec(),
            vec![b'x'; len],
            b"yyyyyyyyyy".to_vec(),
            b"z".to_vec(),
        ]);
        commands.push(vec![vec![b'f'; len], b"a".to_vec()]);
        commands.push(vec![b"client".to_vec(), vec![b's'; len]]);
    }
    commands.push(
        std::iter::once(b"foo".to_vec())
            .chain(vec![b"a".to_vec(); 100])
            .collect(),
    );
    for odd in [&b"a\0b"[..], b"a\r\nb", b"\r\n", b"\xff\xfe", b"\0", b"a\n"] {
        commands.push(vec![odd.to_vec(), odd.to_vec(), b"c".to_vec()]);
        commands.push(vec![b"xinfo".to_vec(), odd.to_vec()]);
        commands.push(vec![b"FOO".to_vec(), odd.to_vec(), odd.to_vec()]);
    }
    // Not a command's name before its end: one in 256 servers would know it, since names are compared as far as the 0.
    commands.push(vec![b"foo\0".to_vec(), b"a".to_vec()]);
    for command in commands {
        assert_eq!(
            error(&table, &command),
            client.call(&command).escape_ascii().to_string()
        );
    }
}

#[test]
fn every_command_is_found_by_its_name() {
    let server = Server::start();
    for protocol in [2, 3] {
        let table = CommandTable::from_nodes(&[server.client(protocol).line("COMMAND")]).unwrap();
        assert_eq!(table.iter().count(), 366);
        let builtin = CommandTable::builtin();
        for command in table.iter() {
            let mut sent: Vec<Vec<u8>> = command
                .name
                .split('|')
                .map(|part| part.to_ascii_uppercase().into_bytes())
                .collect();
            sent.resize(
                command.arity.unsigned_abs().max(sent.len() as u32) as usize,
                b"1".to_vec(),
            );
            let sent = Sent::new(&sent);
            assert_eq!(table.get(&command.name).unwrap().name, command.name);
            let container = table
                .entries
                .iter()
                .any(|entry| entry.container && entry.command.name == command.name);
            if !container {
                assert_eq!(table.lookup(&sent.args()).unwrap().name, command.name);
            }
            // At a place of its own: a server tells its commands in no order.
            let same = Command {
                index: command.index,
                ..builtin.get(&command.name).unwrap().clone()
            };
            assert_eq!(
                format!("{same:?}"),
                format!("{command:?}"),
                "the snapshot says the same"
            );
        }
    }
    assert_eq!(CommandTable::builtin().get("lpush").unwrap().first_key(), Some(1));
    assert_eq!(
        CommandTable::builtin().get("xgroup|create").unwrap().first_key(),
        Some(2)
    );
    for name in ["mget", "eval", "ping", "spublish", "sort", "xread", "zunionstore"] {
        assert_eq!(
            CommandTable::builtin().get(name).unwrap().first_key(),
            None,
            "{name}"
        );
    }
}

/// A command as Redis 6.2 describes it.
fn old(name: &str, arity: i32, flags: &str, range: [i32; 3]) -> String {
    let flags: Vec<String> = flags.split(',').map(|flag| format!("+{flag}\r\n")).collect();
    let [first, last, step] = range;
    format!(
        "*7\r\n${}\r\n{name}\r\n:{arity}\r\n*{}\r\n{}:{first}\r\n:{last}\r\n:{step}\r\n*0\r\n",
        name.len(),
        flags.len(),
        flags.concat()
    )
}

fn old_node(commands: &[String]) -> Vec<u8> {
    format!("*{}\r\n{}", commands.len(), commands.concat()).into_bytes()
}

#[test]
fn an_old_node_is_completed_from_the_snapshot() {
    let table = CommandTable::from_nodes(&[old_node(&[
        old("zunionstore", -4, "write,denyoom,movablekeys", [0, 0, 0]),
        old("xgroup", -2, "write,denyoom", [2, 2, 1]),
        old("expire", 3, "write,fast", [1, 1, 1]),
        old("mod.add", -3, "write,denyoom", [1, -1, 2]),
        old("mod.get", 2, "readonly", [1, 1, 1]),
        old("mod.info", 1, "readonly", [0, 0, 0]),
        old("mod.move", -3, "write,movablekeys", [0, 0, 0]),
        old("mod.wait", -3, "write,blocking", [1, 1, 1]),
        old("mod.set", -3, "admin", [1, 1, 1]),
        old(
            "a.module.command.with.a.name.that.is.too.long",
            1,
            "write",
            [1, 1, 1],
        ),
    ])])
    .unwrap();
    let keys = |line: &str| {
        let command = words(line);
        let sent = Sent::new(&command);
        let found = table.lookup(&sent.args())?;
        Ok::<_, ErrorReply>((found.class(&sent.args()), found.keys(&sent.args())?.to_vec()))
    };
    assert_eq!(keys("ZUNIONSTORE d 2 a b"), Ok((Class::Write, vec![1, 3, 4])));
    assert_eq!(keys("XGROUP CREATE k g 0"), Ok((Class::Write, vec![2])));
    assert_eq!(keys("MOD.ADD a 1 b 2"), Ok((Class::Write, vec![1, 3])));
    assert_eq!(keys("mod.get a"), Ok((Class::Read, vec![1])));
    for (line, word) in [
        ("mod.info", "keys"),
        ("mod.wait a 0", "block"),
        ("mod.set a b", "operates"),
    ] {
        assert!(
            matches!(keys(line), Ok((Class::Refused(why), _)) if why.contains(word)),
            "{line}: {:?}",
            keys(line)
        );
    }
    assert!(matches!(table.get("mod.move").unwrap().class, Class::Refused(_)));
    assert!(keys("mod.move a b").is_err());
    assert!(keys("EXPIRE k 10 NX").is_err() && keys("EXPIRE k 10").is_ok());
    assert!(keys("a.module.command.with.a.name.that.is.too.long").is_err());
    assert!(keys("GET a").is_err());
}

#[test]
fn with_several_nodes_only_what_all_accept_is_known() {
    let server = Server::start();
    let new = server.client(3).line("COMMAND");
    let older = old_node(&[
        old("get", 2, "readonly,fast", [1, 1, 1]),
        old("expire", 3, "write,fast", [1, 1, 1]),
        old("xgroup", -2, "write,denyoom", [2, 2, 1]),
        old("sadd", -5, "write", [1, 1, 1]),
        old("llen", 3, "readonly", [1, 1, 1]),
        old("only.here", 2, "readonly", [1, 1, 1]),
    ]);
    for replies in [[new.clone(), older.clone()], [older, new]] {
        let table = CommandTable::from_nodes(&replies).unwrap();
        let arity = |name| table.get(name).map(|command| command.arity);
        assert_eq!(
            (arity("get"), arity("expire"), arity("sadd")),
            (Some(2), Some(3), Some(-5))
        );
        assert_eq!(
            (arity("llen"), arity("only.here"), arity("lpush")),
            (None, None, None)
        );
        assert_eq!(arity("xgroup|create"), Some(-5));
        assert!(
            table
                .get("sadd")
                .unwrap()
                .flags
                .contains(Flags::WRITE | Flags::FAST)
        );
        assert_eq!(table.get("get").unwrap().first_key(), Some(1));
    }
}

#[test]
fn what_is_no_list_of_commands_is_an_error() {
    assert!(matches!(
        CommandTable::from_nodes::<&[u8]>(&[]),
        Err(TableError::NoNode)
    ));
    for reply in [
        "-ERR no\r\n",
        "+OK\r\n",
        "*1\r\n:1\r\n",
        "*",
        "",
        "_\r\n",
        "$3\r\nab",
    ] {
        assert!(
            matches!(
                CommandTable::from_nodes(&[reply]),
                Err(TableError::NotACommandReply)
            ),
            "{reply:?}"
        );
    }
    let broken = "*1\r\n*6\r\n$3\r\nget\r\n:2\r\n:9\r\n:1\r\n:1\r\n:1\r\n";
    let error = CommandTable::from_nodes(&[broken]).unwrap_err();
    assert!(
        matches!(&error, TableError::Unreadable { command } if command == "get"),
        "{error}"
    );
}

#[test]
fn names_are_their_own() {
    let mut names: Vec<Vec<u8>> = vec![b"get\0".to_vec(), b"\0get".to_vec(), b"g\0et".to_vec()];
    for len in 0..=NAME_BYTES_MAX {
        names.push(vec![b'x'; len]);
        for at in 0..len {
            // Just outside of the capitals, and what a capital would become with a high bit.
            for byte in [b'@', b'[', b'`', b'{', 0xc1, 0xe1, b'y', 0] {
                let mut name = vec![b'x'; len];
                name[at] = byte;
                names.push(name);
            }
        }
    }
    let count = names.len();
    let distinct: std::collections::HashSet<[u64; 5]> = names
        .iter()
        .map(|name| {
            let lower = Name::new(name).unwrap();
            assert_eq!(
                Name::new(&name.to_ascii_uppercase()),
                Some(lower),
                "{}",
                name.escape_ascii()
            );
            let [a, b, c, d] = lower.words;
            [a, b, c, d, lower.len]
        })
        .collect();
    assert_eq!(distinct.len(), count);
    assert!(Name::new(&[b'x'; NAME_BYTES_MAX + 1]).is_none());
}

/// Where the keys of `SORT` are, this program knows by itself: what a node says of them, however simple, is not asked.
#[test]
fn a_node_that_describes_sort_wrongly_is_not_believed() {
    let told = "*1\r\n*10\r\n$4\r\nsort\r\n:-2\r\n*1\r\n+write\r\n:1\r\n:1\r\n:1\r\n*0\r\n*0\r\n*1\r\n*6\r\n$5\r\nflags\r\n*1\r\n+RO\r\n\
                $12\r\nbegin_search\r\n*4\r\n$4\r\ntype\r\n$5\r\nindex\r\n$4\r\nspec\r\n*2\r\n$5\r\nindex\r\n:1\r\n$9\r\nfind_keys\r\n*4\r\n\
                $4\r\ntype\r\n$5\r\nrange\r\n$4\r\nspec\r\n*6\r\n$7\r\nlastkey\r\n:0\r\n$7\r\nkeystep\r\n:1\r\n$5\r\nlimit\r\n:0\r\n*0\r\n";
    let table = CommandTable::from_nodes(&[told]).unwrap();
    let sent = Sent::new(&words("SORT list STORE other"));
    let command = table.lookup(&sent.args()).unwrap();
    assert_eq!(command.keys(&sent.args()).unwrap()[..], [1, 3]);
    assert_eq!(command.keys_written(&sent.args()).unwrap()[..], [3]);
    assert_eq!(command.first_key(), None);
}
