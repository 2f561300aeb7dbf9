//! The commands that are handled by name: a number in place of a string comparison.
//!
//! Which ones these are follows from the code that handles them; a command is added here when some code needs to know it.

macro_rules! specials {
    ($($(#[$meta:meta])* $variant:ident = $name:literal,)*) => {
        /// The commands that some part of the program handles by name.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[allow(missing_docs, reason = "each is the command of that name")]
        pub enum Special {
            /// Any other command.
            None,
            $($(#[$meta])* $variant,)*
        }

        impl Special {
            /// The special command of this full name in lower case.
            pub fn of(name: &str) -> Special {
                match name {
                    $($name => Special::$variant,)*
                    _ => Special::None,
                }
            }
        }

        #[cfg(test)]
        const SPECIAL_NAMES: &[&str] = &[$($name,)*];
    };
}

specials! {
    // The connection.
    Ping = "ping", Echo = "echo", Hello = "hello", Auth = "auth", Select = "select", Reset = "reset", Quit = "quit",
    Time = "time", Wait = "wait", WaitAof = "waitaof", Info = "info", LastSave = "lastsave", Role = "role",
    ConfigGet = "config|get", ConfigResetstat = "config|resetstat",
    AclWhoami = "acl|whoami", AclList = "acl|list", AclUsers = "acl|users", AclGetuser = "acl|getuser",
    Monitor = "monitor", SlowlogGet = "slowlog|get", SlowlogLen = "slowlog|len", SlowlogReset = "slowlog|reset",
    LatencyLatest = "latency|latest", LatencyHistory = "latency|history", LatencyHistogram = "latency|histogram",
    LatencyGraph = "latency|graph", LatencyReset = "latency|reset", LatencyDoctor = "latency|doctor",
    ClientCaching = "client|caching", ClientGetname = "client|getname", ClientGetredir = "client|getredir",
    ClientId = "client|id", ClientInfo = "client|info", ClientKill = "client|kill", ClientList = "client|list",
    ClientNoEvict = "client|no-evict", ClientNoTouch = "client|no-touch", ClientPause = "client|pause",
    ClientReply = "client|reply", ClientSetinfo = "client|setinfo", ClientSetname = "client|setname",
    ClientTracking = "client|tracking", ClientTrackinginfo = "client|trackinginfo",
    ClientUnblock = "client|unblock", ClientUnpause = "client|unpause",
    // Transactions.
    Multi = "multi", Exec = "exec", Discard = "discard", Watch = "watch", Unwatch = "unwatch",
    // Keys whose life is measured in time.
    Set = "set", Setex = "setex", Psetex = "psetex", Getex = "getex", Expire = "expire", Pexpire = "pexpire",
    Expireat = "expireat", Pexpireat = "pexpireat", Restore = "restore", Hexpire = "hexpire", Hpexpire = "hpexpire",
    Hexpireat = "hexpireat", Hpexpireat = "hpexpireat", Hgetex = "hgetex", Hsetex = "hsetex", Msetex = "msetex",
    // Several keys.
    Mget = "mget", Mset = "mset", Msetnx = "msetnx", Del = "del", Unlink = "unlink", Exists = "exists",
    Touch = "touch", Copy = "copy", Rename = "rename", Renamenx = "renamenx", Lmove = "lmove",
    Rpoplpush = "rpoplpush", Smove = "smove",
    // Answers that depend on the node.
    Spop = "spop", Srandmember = "srandmember", Hrandfield = "hrandfield", Zrandmember = "zrandmember",
    Sort = "sort", SortRo = "sort_ro", Hscan = "hscan", Sscan = "sscan", Zscan = "zscan",
    Georadius = "georadius", Georadiusbymember = "georadiusbymember", Migrate = "migrate",
    // Streams.
    Xadd = "xadd", Xtrim = "xtrim", Xclaim = "xclaim", Xautoclaim = "xautoclaim", Xpending = "xpending",
    Xread = "xread", Xreadgroup = "xreadgroup", Xlen = "xlen", Xrange = "xrange", Xrevrange = "xrevrange", Xdel = "xdel",
    Xack = "xack", XgroupCreate = "xgroup|create", XgroupDestroy = "xgroup|destroy", XgroupSetid = "xgroup|setid",
    XgroupCreateconsumer = "xgroup|createconsumer", XgroupDelconsumer = "xgroup|delconsumer", XinfoStream = "xinfo|stream",
    XinfoGroups = "xinfo|groups", XinfoConsumers = "xinfo|consumers",
    // Waiting for data, and the same without waiting.
    Blpop = "blpop", Brpop = "brpop", Blmove = "blmove", Brpoplpush = "brpoplpush", Blmpop = "blmpop",
    Bzpopmin = "bzpopmin", Bzpopmax = "bzpopmax", Bzmpop = "bzmpop", Lpop = "lpop", Rpop = "rpop", Lmpop = "lmpop",
    Zpopmin = "zpopmin", Zpopmax = "zpopmax", Zmpop = "zmpop",
    // What reads a sorted set that is spread over nodes, or takes from it.
    Zrange = "zrange", Zrevrange = "zrevrange", Zrangebyscore = "zrangebyscore", Zrank = "zrank",
    Zrevrank = "zrevrank", Zscore = "zscore", Zcard = "zcard", Zcount = "zcount", Zrem = "zrem", Get = "get",
    // Putting in what others wait for.
    Lpush = "lpush", Rpush = "rpush", Lpushx = "lpushx", Rpushx = "rpushx", Linsert = "linsert", Zadd = "zadd", Zincrby = "zincrby",
    // What else is done to a list that is spread over nodes.
    Llen = "llen", Lrange = "lrange", Lindex = "lindex", Lset = "lset", Lrem = "lrem", Ltrim = "ltrim", Lpos = "lpos",
    Type = "type", Ttl = "ttl", Pttl = "pttl", Expiretime = "expiretime", Pexpiretime = "pexpiretime",
    Persist = "persist",
    // Writes that answer alike whether the key has just expired or not.
    Hset = "hset", Hmset = "hmset", Sadd = "sadd", Pfadd = "pfadd", Setrange = "setrange",
    // Scripts and functions.
    Eval = "eval", EvalRo = "eval_ro", Evalsha = "evalsha", EvalshaRo = "evalsha_ro", Fcall = "fcall",
    FcallRo = "fcall_ro", ScriptLoad = "script|load", ScriptExists = "script|exists", ScriptFlush = "script|flush",
    ScriptKill = "script|kill", FunctionLoad = "function|load", FunctionDelete = "function|delete",
    FunctionFlush = "function|flush", FunctionRestore = "function|restore", FunctionList = "function|list",
    FunctionDump = "function|dump", FunctionStats = "function|stats", FunctionKill = "function|kill",
    // The whole pool.
    Scan = "scan", Keys = "keys", Dbsize = "dbsize", Randomkey = "randomkey", Flushdb = "flushdb",
    Flushall = "flushall",
    // Publish and subscribe.
    Subscribe = "subscribe", Unsubscribe = "unsubscribe", Psubscribe = "psubscribe", Punsubscribe = "punsubscribe",
    Ssubscribe = "ssubscribe", Sunsubscribe = "sunsubscribe", Publish = "publish", Spublish = "spublish",
    PubsubChannels = "pubsub|channels", PubsubNumsub = "pubsub|numsub", PubsubNumpat = "pubsub|numpat",
    PubsubShardchannels = "pubsub|shardchannels", PubsubShardnumsub = "pubsub|shardnumsub",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_specials_are_distinct() {
        let mut names = SPECIAL_NAMES.to_vec();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), SPECIAL_NAMES.len());
    }
}
