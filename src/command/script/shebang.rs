//! The first line of a script that has one: `#!lua name=lib flags=no-writes`.

/// The first line of a script that has one: `#!lua name=lib flags=no-writes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shebang<'a> {
    /// What the script is written in.
    pub engine: &'a [u8],
    /// The library's name, for `FUNCTION LOAD`.
    pub name: Option<&'a [u8]>,
    /// `no-writes`: it changes nothing.
    pub no_writes: bool,
    /// `allow-oom`: it also runs on a server that is out of memory.
    pub allow_oom: bool,
    /// `allow-cross-slot-keys`: its keys need not belong together.
    pub allow_cross_slot_keys: bool,
}

/// Reads the first line of a script, if it starts with `#!`. What Redis would refuse in it is left to Redis.
pub fn shebang(text: &[u8]) -> Option<Shebang<'_>> {
    let line = text.strip_prefix(b"#!")?.split(|&byte| byte == b'\n').next()?;
    let mut words = line
        .split(u8::is_ascii_whitespace)
        .filter(|word| !word.is_empty());
    let mut read = Shebang {
        engine: words.next()?,
        name: None,
        no_writes: false,
        allow_oom: false,
        allow_cross_slot_keys: false,
    };
    for word in words {
        if let Some(name) = word.strip_prefix(b"name=") {
            read.name = Some(name);
        } else if let Some(flags) = word.strip_prefix(b"flags=") {
            for flag in flags.split(|&byte| byte == b',') {
                match flag {
                    b"no-writes" => read.no_writes = true,
                    b"allow-oom" => read.allow_oom = true,
                    b"allow-cross-slot-keys" => read.allow_cross_slot_keys = true,
                    _ => {}
                }
            }
        }
    }
    Some(read)
}
