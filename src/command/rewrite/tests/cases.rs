//! The cases. A heading says the expected form, and whether reply and effect are the `same` as those of the client's own
//! command, or `alike` because the server chooses; `first` lines are run before each case below them; before a `; ` stands
//! what is run first for one case. `@long_ago`, `@start`, `@soon`: times; `@dump`: a `DUMP` of the key `dumped`.

pub(super) const CASES: &str = "
[rewritten, same]
SET k v EX 10
SET k v ex 10
SET k v PX 10000
SET k v EX 10 EX 20
SET k v EX x EX 20
SET k v NX EX 10
SET k v; SET k w NX EX 10
SET k v; SET k w XX EX 10
SET k v XX EX 10
SET k v; SET k w EX 10 GET
SET k v GET PX 10000
RPUSH k v; SET k w EX 10 GET
RPUSH k v; SET k w EX 10
SET k v EX 10 NONSENSE
SET k v NX XX EX 10
SET k EX EX 10
SET k v EX 9223372036
SETEX k 10 v
RPUSH k v; SETEX k 10 v
SETEX k 10 ''
PSETEX k 10000 v
EXPIRE k 10
SET k v; EXPIRE k 10
SET k v; PEXPIRE k 10000
SET k v; EXPIRE k 10 NX
SET k v; EXPIRE k 10 XX
SET k v; EXPIRE k 10 GT
SET k v; EXPIRE k 10 LT
SET k v; PEXPIREAT k @soon; EXPIRE k 10 NX
SET k v; PEXPIREAT k @soon; EXPIRE k 10 XX
SET k v; PEXPIREAT k @soon; EXPIRE k 10 GT
SET k v; PEXPIREAT k @soon; EXPIRE k 1000 GT
SET k v; PEXPIREAT k @soon; EXPIRE k 10 LT
SET k v; PEXPIREAT k @soon; PEXPIRE k 1000000 LT
SET k v; EXPIRE k 10 NX GT
SET k v; EXPIRE k 10 GT LT
SET k v; EXPIRE k 10 NONSENSE
HSET k f v; EXPIRE k 10
GETEX k EX 10
SET k v; GETEX k EX 10
SET k v; GETEX k PX 10000
SET k v; GETEX k px 10000 NONSENSE
RPUSH k v; GETEX k EX 10
SET dumped v; RESTORE k 10000 @dump
SET dumped v; SET k w; RESTORE k 10000 @dump
SET dumped v; SET k w; RESTORE k 10000 @dump REPLACE
SET dumped v; RESTORE k 10000 @dump IDLETIME 5 REPLACE
SET dumped v; RESTORE k 10000 @dump IDLETIME 5 FREQ 6
SET dumped v; RESTORE k 10000 nonsense
SET dumped v; RESTORE k 10000 @dump NONSENSE

[as-is, same]
SET k v
SET k v NX
SET k v; PEXPIREAT k @soon; SET k v KEEPTTL
SET k v PXAT @soon
SET k v EXAT 99999999999
SET k v EX 0
SET k v EX -1
SET k v PX 0
SET k v EX x
SET k v EX
SET k v EX 01
SET k v EX 9223372036854775807
SET k v PX 9223372036854775807
SET k v EX 10 PX 10
SET k v EX 10 KEEPTTL
SET k v EX 10 PXAT 10
SETEX k 0 v
SETEX k -1 v
SETEX k x v
PSETEX k 9223372036854775807 v
SET k v; EXPIRE k 0
SET k v; EXPIRE k -1
SET k v; PEXPIREAT k @soon; EXPIRE k -1 GT
SET k v; PEXPIREAT k @soon; EXPIRE k -1 LT
SET k v; EXPIRE k x
SET k v; EXPIRE k 9223372036854775807
SET k v; EXPIRE k -9223372036854775807
SET k v; PEXPIRE k 9223372036854775807
GETEX k
SET k v; PEXPIREAT k @soon; GETEX k
SET k v; PEXPIREAT k @soon; GETEX k PERSIST
SET k v; GETEX k PXAT @soon
SET k v; GETEX k EX 0
SET k v; GETEX k EX x
SET k v; GETEX k EX 10 PERSIST
SET dumped v; RESTORE k 0 @dump
SET dumped v; RESTORE k @soon @dump ABSTTL
SET dumped v; RESTORE k -1 @dump
SET dumped v; RESTORE k x @dump
XADD s 5-1 a b
XADD s 5-* a b
XADD s 5-1 a b; XADD s 5-* a b
XADD s 5-1 a b; XADD s 5-1 a b
XADD s 5-1 a b; XADD s MAXLEN 1 5-2 a b
XADD s NOMKSTREAM 5-1 a b
XADD s MAXLEN ~ 5 LIMIT x 5-1 a b
XADD s MAXLEN = 5 LIMIT 5 5-1 a b
XADD s MAXLEN ~ 5 MINID ~ 5 5-1 a b
XADD s MAXLEN 5 LIMIT 5 * a b
XADD s LIMIT 5 * a b
XADD s 1-0 a b; XADD s 2-0 a b; XTRIM s MAXLEN 1
XADD s 1-0 a b; XADD s 2-0 a b; XTRIM s MINID = 2-0
XTRIM s LIMIT 5
XTRIM s NONSENSE ~ 5
SPOP k 0
SADD k a; SPOP k 0
SADD k a; SPOP k -1
SADD k a; SPOP k x
SADD k a; SPOP k 1 2
SET k v; SPOP k 0
XCLAIM s g c x 1-0
XCLAIM s g c 5 nonsense
XADD s 1-0 a b; XGROUP CREATE s g 0; XCLAIM s g c 5 1-0 NONSENSE
XADD s 1-0 a b; XGROUP CREATE s g 0; XCLAIM s g c 5 1-0 TIME
XADD s 1-0 a b; XGROUP CREATE s g 0; XCLAIM s g c 5 1-0 IDLE x
XADD s 1-0 a b; XGROUP CREATE s g 0; XCLAIM s g c 5 1-0 LASTID x
XAUTOCLAIM s g c x 0
XAUTOCLAIM s g c 5 0 COUNT 0
XAUTOCLAIM s g c 5 0 COUNT 9223372036854775807
XAUTOCLAIM s g c 5 0 NONSENSE
SORT k
RPUSH k 3 1 2; SORT k
RPUSH k 3 1 2; SORT k STORE d
SADD k 3 1 2 1.0; SORT k STORE d
RPUSH k b a; SORT k ALPHA STORE d
SADD k b a c; SORT k BY nosort STORE d
SADD k b a c; SORT k BY nosort ALPHA STORE d
MSET w_b 1 w_a 1 w_c 1; SADD k b a c; SORT k BY w_* STORE d
MSET w_b 1 w_a 2 w_c 3; SADD k b a c; SORT k BY w_* ALPHA
RPUSH k a; SORT k BY w_* ALPHA STORE
RPUSH k a; SORT k BY w_* ALPHA STORE d NONSENSE
SORT k BY w_* LIMIT 0 STORE

# Trimmed to the number, where Redis would leave what stands in one block with it.
[rewritten, same]
XADD s 5-1 a b; XADD s MAXLEN ~ 5 6-1 a b
XADD s 5-1 a b; XADD s MINID ~ 5-1 6-1 a b
XADD s 5-1 a b; XADD s MAXLEN ~ 5 LIMIT 10 6-1 a b
XADD s 5-1 a b; XADD s maxlen ~ 5 limit 0 6-1 a b
XADD s 5-1 a b; XADD s NOMKSTREAM MAXLEN ~ 5 6-1 a b
XADD s 5-1 a b; XADD s MAXLEN ~ 5 5-1 a b
XADD s MAXLEN ~ -5 5-1 a b
XADD s MAXLEN ~ x 5-1 a b
XADD s MAXLEN ~ 5 5-1 a
XADD s MAXLEN ~ 5 nonsense a b
SET s v; XADD s MAXLEN ~ 5 5-1 a b
XTRIM s MAXLEN ~ 5
XADD s 5-1 a b; XTRIM s MAXLEN ~ 5
XADD s 5-1 a b; XTRIM s MINID ~ 5 LIMIT 10
XADD s 5-1 a b; XTRIM s MINID ~ x LIMIT 10
XADD s NOMKSTREAM * a b
XADD s * a
SET s v; XADD s * a b

[rewritten, alike]
XADD s * a b
XADD s 5-1 a b; XADD s * a b
XADD s 5-1 a b; XADD s MAXLEN 1 * a b
XADD s 5-1 a b; XADD s MAXLEN ~ 5 LIMIT 10 * a b
XADD s 5-1 a b; XADD s NOMKSTREAM * a b

# The second chance: ids in the future.
[rewritten, same]
XADD s 99999999999999-5 a b; XADD s * a b
XADD s 99999999999999-5 a b; XDEL s 99999999999999-5; XADD s MAXLEN ~ 5 * a b
XADD s 99999999999999-18446744073709551615 a b; XADD s * a b
XADD s 18446744073709551615-18446744073709551614 a b; XADD s * a b
XADD s 18446744073709551615-18446744073709551615 a b; XADD s * a b
XADD s 99999999999999-5 a b; XADD s NOMKSTREAM MINID = 99999999999999-6 * a b

[decided, same]
SPOP k
SPOP k 5
SADD k a; SPOP k
SADD k a; SPOP k 1
SADD k a; SPOP k 9999
SET k v; SPOP k
SET k v; SPOP k 1
SADD k ''; SPOP k
MSET w_b 1 w_a 2 w_c 3; SADD k b a c; SORT k BY w_* ALPHA STORE d
MSET w_b 1 w_a 2 w_c 3; SADD k b a c; SORT k BY w_* DESC ALPHA GET none_* GET # GET w_* STORE d
MSET w_b 1 w_a 2 w_c 3; RPUSH k b a c; RPUSH d old; SORT k BY w_* ALPHA LIMIT 1 1 STORE e STORE d
MSET w_b 1 w_a 2 w_c 3; RPUSH k b a c; SORT k BY w_* ALPHA STORE k
RPUSH d old; SORT k BY w_* ALPHA STORE d
SET k v; RPUSH d old; SORT k BY w_* ALPHA STORE d

[decided, alike]
SADD k a b c d; SPOP k
SADD k a b c d; SPOP k 2
SADD k a b c d; SPOP k 4
SADD k a b c d; SPOP k 5
SADD k 1 2 3 4; SPOP k
SADD k 1 2 3 4; SPOP k 2
MSET w_b 1 w_a 1 w_c 1; SADD k b a c; SORT k BY w_* ALPHA STORE d
SADD k b a c; SORT k BY w_* ALPHA LIMIT 0 2 STORE d

[rewritten, same]
first XADD s 1-0 a b
first XADD s 2-0 a b
first XADD s 3-0 a b
first XGROUP CREATE s g 0
first XREADGROUP GROUP g one STREAMS s >
first XCLAIM s g one 0 1-0 3-0 TIME @long_ago
first XCLAIM s g one 0 2-0 TIME @start
XCLAIM s g two 0 1-0
XCLAIM s g two 0 1-0 2-0 99-0
XCLAIM s g two -5 1-0
XCLAIM s g two 0 1 2 JUSTID
XCLAIM s g two 0 1-0 IDLE 5000
XCLAIM s g two 0 1-0 idle 5000 time 1000
XCLAIM s g two 0 1-0 TIME 1000 IDLE 5000
XCLAIM s g two 0 1-0 IDLE -5
XCLAIM s g two 0 1-0 IDLE 99999999999999
XCLAIM s g two 0 1-0 TIME 99999999999999
XCLAIM s g two 0 1-0 TIME -1
XCLAIM s g two 0 1-0 RETRYCOUNT 7 LASTID 9-9
XCLAIM s g two 0 1-0 RETRYCOUNT -1
XACK s g 1-0; XCLAIM s g two 0 1-0
XACK s g 1-0; XCLAIM s g two 0 1-0 FORCE
XDEL s 1-0; XCLAIM s g two 0 1-0 3-0
XCLAIM s none two 0 1-0
XCLAIM none g two 0 1-0
SET k v; XCLAIM k g two 0 1-0

[decided, same]
first XADD s 1-0 a b
first XADD s 2-0 a b
first XADD s 3-0 a b
first XADD s 4-0 a b
first XGROUP CREATE s g 0
first XREADGROUP GROUP g one COUNT 3 STREAMS s >
first XCLAIM s g one 0 1-0 3-0 TIME @long_ago
first XCLAIM s g one 0 2-0 TIME @start
XCLAIM s g two 60000 1-0
XCLAIM s g two 60000 1-0 2-0 3-0
XCLAIM s g two 60000 3-0 1-0 JUSTID
XCLAIM s g two 60000 3 2 1
XCLAIM s g two 60000 1-0 1-0
XCLAIM s g two 60000 1-0 1-0 IDLE 60000
XCLAIM s g two 60000 4-0 4-0 FORCE
XCLAIM s g two 60000 2-0
XCLAIM s g two 60000 2-0 LASTID 9-9
XCLAIM s g two 60000 4-0
XCLAIM s g two 60000 4-0 FORCE
XCLAIM s g two 60000 1-0 2-0 4-0 99-0 FORCE
XCLAIM s g two 60000 1-0 2-0 RETRYCOUNT 9 IDLE 4000
XDEL s 1-0; XCLAIM s g two 60000 1-0 3-0
XCLAIM s none two 60000 1-0
XCLAIM none g two 60000 1-0
SET k v; XCLAIM k g two 60000 1-0
XAUTOCLAIM s g two 60000 0
XAUTOCLAIM s g two 60000 0 JUSTID
XAUTOCLAIM s g two 60000 0 COUNT 1
XAUTOCLAIM s g two 60000 2-0 COUNT 1
XAUTOCLAIM s g two 60000 (1-0
XAUTOCLAIM s g two 60000 -
XAUTOCLAIM s g two 60000 9-0
XAUTOCLAIM s g two 0 0
XAUTOCLAIM s g two -1 0 COUNT 2
XAUTOCLAIM s g two 99999999 0
XAUTOCLAIM s g two 60000 nonsense
XDEL s 1-0; XAUTOCLAIM s g two 60000 0
XDEL s 1-0; XAUTOCLAIM s g two 60000 0 JUSTID
XDEL s 3-0; XAUTOCLAIM s g two 60000 0 COUNT 1
XDEL s 1-0 3-0; XAUTOCLAIM s g two 60000 0 COUNT 1
XAUTOCLAIM s none two 60000 0
XAUTOCLAIM none g two 60000 0
SET k v; XAUTOCLAIM k g two 60000 0
";
