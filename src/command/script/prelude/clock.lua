-- What depends on a clock, on chance or on an order that servers do not define is computed from the run's moment.
local resp3
fields_of_redis.setresp = function(n)
    resp3 = n == 3
    return redis.setresp(n)
end
-- From 0 to 1, from a generator of our own.
local function chance()
    if not now then read_moment() end
    seed = seed * 16807 % 2147483647
    return seed / 2147483647
end
--@ each run
resp3 = false
--@ when needed
local function whole(n) return string.format('%.0f', n) end
local function later(time, unit) return whole(now + tonumber(time) * unit) end
-- Whether a time counts from now. What is no positive whole number is left to Redis, which refuses it, or deletes.
local function counts(time)
    local n = tonumber(time)
    return n and n > 0 and n == math.floor(n) and n < 1e15
end
local function expire(unit)
    return function(f, a)
        if a[3] and counts(a[3]) then a[1], a[3] = 'PEXPIREAT', later(a[3], unit) end
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
special = { expire = expire(1000), pexpire = expire(1), set = options(4) }
-- Most scripts need none of what follows, so it is made when a command asks for it.
local function make_others()
    local function draw(n) return math.floor(chance() * n) + 1 end
    local function sorted(list)
        if type(list) == 'table' and not list.err then table.sort(list) end
        return list
    end
    local function set_with_time(unit)
        return function(f, a)
            if #a == 4 and counts(a[3]) then return f('SET', a[2], a[4], 'PXAT', later(a[3], unit)) end
            return f(unpack(a))
        end
    end
    local function left(unit)
        return function(f, a)
            if #a ~= 2 then return f(unpack(a)) end
            local at = deadline(f, a[2])
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
        local n = tonumber(a[3] or 1)
        if #a < 2 or #a > 3 or not n or n < 0 or n ~= math.floor(n) then return f(unpack(a)) end
        local list = members(f, a)
        if type(list) ~= 'table' or list.err then return list end
        local taken = some(list, n)
        for _, member in ipairs(taken) do f('SREM', a[2], member) end
        if a[3] then return taken end
        return taken[1] or false
    end
    -- Some by chance: the members of a set, or the fields or members that `listing` gives, with what `value` gives for each.
    local function pick(listing, value, word)
        return function(f, a)
            local n = tonumber(a[3] or 1)
            local odd = #a < 2 or #a > 4 or not n or n ~= math.floor(n) or math.abs(n) > 1e9
            if odd or (a[4] and string.lower(tostring(a[4])) ~= word) then return f(unpack(a)) end
            local list = listing(f, a)
            if type(list) ~= 'table' or list.err then return list end
            local out = {}
            if n >= 0 then
                out = some(list, n)
            elseif #list > 0 then
                for _ = 1, -n do out[#out + 1] = list[draw(#list)] end
            end
            if not a[3] then return out[1] or false end
            if not a[4] then return out end
            local pairs_of = {}
            for _, one in ipairs(out) do
                pairs_of[#pairs_of + 1] = one
                pairs_of[#pairs_of + 1] = f(value, a[2], one)
            end
            return pairs_of
        end
    end
    local function fields(f, a) return sorted(f('HKEYS', a[2])) end
    local function ranked(f, a) return f('ZRANGE', a[2], 0, -1) end
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
            local info, ms, seq = redis.pcall('XINFO', 'STREAM', a[2]), now, 0
            if type(info) == 'table' and not info.err then
                for k = 1, #info - 1, 2 do
                    if info[k] == 'last-generated-id' then
                        local last_ms, last_seq = string.match(info[k + 1], '^(%d+)-(%d+)$')
                        if tonumber(last_ms) >= now then ms, seq = tonumber(last_ms), tonumber(last_seq) + 1 end
                    end
                end
            end
            -- Redis 7.0 counts by itself, exactly to the end.
            id = whole(ms) .. '-' .. (redis.REDIS_VERSION_NUM and '*' or whole(seq))
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
        return fail(f, 'ERR ' .. tostring(a[1]) .. ' is not possible in this script: it could differ from node to node')
    end
    -- A walk in one step: where a cursor would lead depends on how a server has laid the key out.
    local function walk(listing)
        return function(f, a)
            for i = 4, #a, 2 do
                if string.lower(tostring(a[i])) ~= 'count' then return no(f, a) end
            end
            if #a < 3 or tonumber(a[3]) ~= 0 then return f(unpack(a)) end
            local list = listing(f, a)
            if type(list) ~= 'table' or list.err then return list end
            return { '0', list }
        end
    end
    local function fields_and_values(f, a) return pairs_in_order(f, { 'HGETALL', a[2] }) end
    local function scores(f, a) return f('ZRANGE', a[2], 0, -1, 'WITHSCORES') end
    -- How much `~` leaves depends on a setting of the server.
    local function trim(f, a)
        if a[4] == '~' then
            for i = 5, #a do
                if string.lower(tostring(a[i])) == 'limit' then a[i], a[i + 1] = nil, nil break end
            end
            a[4] = '='
        end
        return f(unpack(a))
    end
    -- Ties between texts of a pattern stay as the server finds them.
    local function sort(f, a)
        local by, alpha = false, false
        for i = 3, #a do
            local word = string.lower(tostring(a[i]))
            by, alpha = by or word == 'by', alpha or word == 'alpha'
        end
        if by and alpha then return no(f, a) end
        return f(unpack(a))
    end
    local function time() return { whole(math.floor(now / 1000)), whole(now % 1000 * 1000) } end
    return {
        time = time, setex = set_with_time(1000), psetex = set_with_time(1),
        getex = options(3), ttl = left(1000), pttl = left(1), restore = restore, xadd = add, xtrim = trim,
        spop = pop, srandmember = pick(members), hrandfield = pick(fields, 'HGET', 'withvalues'), sort = sort, sort_ro = sort,
        zrandmember = pick(ranked, 'ZSCORE', 'withscores'), smembers = in_order, sinter = in_order, sunion = in_order,
        sdiff = in_order, hkeys = in_order, hvals = in_order, keys = in_order, hgetall = pairs_in_order,
        sscan = walk(members), hscan = walk(fields_and_values), zscan = walk(scores),
        randomkey = no, scan = no, xautoclaim = no, xclaim = no,
        select = no, flushall = no, flushdb = no, swapdb = no, move = no, migrate = no, config = no, script = no,
        ['function'] = no, client = no, debug = no, acl = no, module = no, cluster = no, replicaof = no, slaveof = no,
        object = no, info = no, dbsize = no, lastsave = no, role = no, memory = no, latency = no, slowlog = no,
        hexpire = no, hpexpire = no, hgetex = no, hsetex = no, msetex = no,
    }
end
local SPECIAL = ' @CLOCKED@ '
local made
setmetatable(special, {
    __index = function(_, name)
        if not string.find(SPECIAL, ' ' .. name .. ' ', 1, true) then return nil end
        made = made or make_others()
        return made[name]
    end,
})
-- All of it is written for RESP2, and given what RESP3 would have made of it.
around = function(how, name)
    return function(f, a)
        if not resp3 then return how(f, a) end
        redis.setresp(2)
        local reply = how(redis.pcall, a)
        redis.setresp(3)
        if reply == false then return nil end
        if type(reply) ~= 'table' then return reply end
        if reply.err then return f == call and error(redis.REDIS_VERSION_NUM and reply or reply.err, 0) or reply end
        if name == 'smembers' or name == 'sinter' or name == 'sunion' or name == 'sdiff' or (name == 'spop' and a[3]) then
            local set = {}
            for _, member in ipairs(reply) do set[member] = true end
            return { set = set }
        end
        if name == 'hgetall' then
            local map = {}
            for i = 1, #reply, 2 do map[reply[i]] = reply[i + 1] end
            return { map = map }
        end
        return reply
    end
end
