-- Put in front of a script whose effect could differ from node to node: everything that depends on a clock, on chance or on
-- an order that servers do not define is computed from the script's last argument, the pool's time in ms, which is the same
-- for all nodes. The script itself sees `redis`, `os` and `tostring` as it knows them, and its own arguments.
-- Whole-line comments only: the lines are joined into one, so that line numbers in the script's errors stay right.
local redis, os, tostring = (function(redis, ARGV, tostring)
    local now = tonumber(ARGV[#ARGV])
    ARGV[#ARGV] = nil
    local seed = now % 2147483646 + 1
    local call, run = redis.call, nil
    local function whole(n) return string.format('%.0f', n) end
    local function later(time, unit) return whole(now + tonumber(time) * unit) end
    -- Whether a time counts from now. What is no positive whole number is left to Redis, which refuses it, or deletes.
    local function counts(time)
        local n = tonumber(time)
        return n and n > 0 and n == math.floor(n) and n < 1e15
    end
    -- A number from 1 to n, from a generator of our own.
    local function draw(n)
        seed = seed * 16807 % 2147483647
        return seed % n + 1
    end
    local function sorted(list)
        if type(list) == 'table' and not list.err then table.sort(list) end
        return list
    end
    local function expire(unit)
        return function(f, a)
            if a[3] and counts(a[3]) then a[1], a[3] = 'PEXPIREAT', later(a[3], unit) end
            return f(unpack(a))
        end
    end
    local function set_with_time(unit)
        return function(f, a)
            if #a == 4 and counts(a[3]) then return f('SET', a[2], a[4], 'PXAT', later(a[3], unit)) end
            return f(unpack(a))
        end
    end
    local function options(from)
        return function(f, a)
            for i = from, #a - 1 do
                local unit = ({ ex = 1000, px = 1 })[string.lower(tostring(a[i]))]
                if unit and counts(a[i + 1]) then
                    a[i], a[i + 1] = 'PXAT', later(a[i + 1], unit)
                    break
                end
            end
            return f(unpack(a))
        end
    end
    local function left(unit)
        return function(f, a)
            if #a ~= 2 then return f(unpack(a)) end
            local at = f('PEXPIRETIME', a[2])
            if type(at) ~= 'number' or at < 0 then return at end
            local ms = math.max(at - now, 0)
            return unit == 1 and ms or math.floor((ms + 500) / 1000)
        end
    end
    local function in_order(f, a) return sorted(f(unpack(a))) end
    local function pairs_in_order(f, a)
        local flat = f(unpack(a))
        if type(flat) ~= 'table' or flat.err then return flat end
        local fields, values = {}, {}
        for i = 1, #flat, 2 do
            fields[#fields + 1] = flat[i]
            values[flat[i]] = flat[i + 1]
        end
        table.sort(fields)
        local out = {}
        for _, field in ipairs(fields) do
            out[#out + 1] = field
            out[#out + 1] = values[field]
        end
        return out
    end
    -- So many different ones of a list, in the order in which they were drawn.
    local function some(list, n)
        local out = {}
        for _ = 1, math.min(n, #list) do out[#out + 1] = table.remove(list, draw(#list)) end
        return out
    end
    local function members(f, a) return sorted(f('SMEMBERS', a[2])) end
    local function pop(f, a)
        local n = a[3] and tonumber(a[3]) or 1
        if #a < 2 or #a > 3 or not n or n < 0 then return f(unpack(a)) end
        local list = members(f, a)
        if type(list) ~= 'table' or list.err then return list end
        local taken = some(list, n)
        for _, member in ipairs(taken) do f('SREM', a[2], member) end
        if a[3] then return taken end
        return taken[1] or false
    end
    local function pick(f, a)
        local n = a[3] and tonumber(a[3]) or 1
        if #a < 2 or #a > 3 or not n then return f(unpack(a)) end
        local list = members(f, a)
        if type(list) ~= 'table' or list.err then return list end
        local out = {}
        if n >= 0 then
            out = some(list, n)
        elseif #list > 0 then
            for _ = 1, -n do out[#out + 1] = list[draw(#list)] end
        end
        if a[3] then return out end
        return out[1] or false
    end
    -- `*` becomes the pool's time, or the stream's own when that is ahead; `~` becomes exact.
    local function add(f, a)
        local i, id = 3, nil
        local out = { a[1], a[2] }
        while a[i] and not id do
            local word = string.lower(tostring(a[i]))
            if word == 'nomkstream' then
                out[#out + 1] = a[i]
                i = i + 1
            elseif word == 'maxlen' or word == 'minid' then
                out[#out + 1] = a[i]
                i = i + 1
                if a[i] == '~' or a[i] == '=' then i = i + 1 end
                out[#out + 1] = a[i]
                i = i + 1
                if a[i] and string.lower(tostring(a[i])) == 'limit' then i = i + 2 end
            else
                id = a[i]
            end
        end
        if id == '*' then
            local info, ms = redis.pcall('XINFO', 'STREAM', a[2]), now
            if type(info) == 'table' and not info.err then
                for k = 1, #info - 1, 2 do
                    if info[k] == 'last-generated-id' then
                        ms = math.max(now, tonumber(string.match(info[k + 1], '^%d+')))
                    end
                end
            end
            id = whole(ms) .. '-*'
        end
        out[#out + 1] = id
        for k = i + 1, #a do out[#out + 1] = a[k] end
        return f(unpack(out))
    end
    local function restore(f, a)
        local absolute = false
        for i = 5, #a do absolute = absolute or string.lower(tostring(a[i])) == 'absttl' end
        if not absolute and a[4] and counts(a[3]) then
            a[3] = later(a[3], 1)
            a[#a + 1] = 'ABSTTL'
        end
        return f(unpack(a))
    end
    local function no(f, a)
        local text = 'ERR ' .. tostring(a[1]) .. ' is not possible in this script: it could differ from node to node'
        return f == call and error({ err = text }) or { err = text }
    end
    local time = function() return { whole(math.floor(now / 1000)), whole(now % 1000 * 1000) } end
    local special = {
        time = time, expire = expire(1000), pexpire = expire(1), setex = set_with_time(1000), psetex = set_with_time(1),
        set = options(4), getex = options(3), ttl = left(1000), pttl = left(1), restore = restore, xadd = add,
        spop = pop, srandmember = pick, smembers = in_order, sinter = in_order, sunion = in_order, sdiff = in_order,
        hkeys = in_order, hvals = in_order, keys = in_order, hgetall = pairs_in_order,
        hrandfield = no, zrandmember = no, randomkey = no, scan = no, sscan = no, hscan = no, xautoclaim = no, xclaim = no,
        select = no, flushall = no, flushdb = no, swapdb = no, move = no, migrate = no, config = no, script = no,
        ['function'] = no, client = no, debug = no, acl = no, module = no, cluster = no, replicaof = no, slaveof = no,
        object = no, touch = no, info = no, dbsize = no, lastsave = no, role = no, memory = no,
        hexpire = no, hpexpire = no, hgetex = no, hsetex = no, msetex = no,
    }
    run = function(f, ...)
        local a = { ... }
        local how = type(a[1]) == 'string' and special[string.lower(a[1])]
        if how and select('#', ...) == #a then return how(f, a) end
        return f(...)
    end
    local mine = {
        call = function(...) return run(call, ...) end,
        pcall = function(...) return run(redis.pcall, ...) end,
    }
    local function text(value)
        local kind = type(value)
        if kind == 'table' or kind == 'function' or kind == 'thread' or kind == 'userdata' then return kind end
        return tostring(value)
    end
    return setmetatable(mine, { __index = redis }), { clock = function() return now / 1000 end }, text
end)(redis, ARGV, tostring)
