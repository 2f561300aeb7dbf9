-- Stands between a script and `redis`: makes the `redis` (and whatever else is to be another one) that the script sees.
-- A part sets what it needs: `item` says what the nodes call a command's first key, `guard` looks at a command before anything else does
-- (`allow` tells it of a key that lives with the declared ones), `special` executes one in its place, `around` makes of that what is
-- executed, `begin` is told when a run begins, `done` gets its result.
-- Whole-line comments only: the lines are joined into one, so that line numbers in the script's errors stay right.
local function rf_make(redis, math, tostring)
    local call, guard, allow, item, special, around, begin, done = redis.call, nil, nil, nil, {}, nil, {}, nil
    -- The pool's time in ms, where it counts.
    local now
    -- What of `redis` itself is to be another one.
    local fields_of_redis = { set_repl = function() end }
    -- Whatever else may come from chance, or a clock, as the script sees it.
    local my_math, my_tostring, my_os = math, tostring, nil
    -- Before Redis 7.0 an error must be a text.
    local function fail(f, text)
        return f == call and error(redis.REDIS_VERSION_NUM and { err = text } or text, 0) or { err = text }
    end
    -- When a key expires. Before Redis 7.0 by what is left, at a moment in which the node's own clock has not gone on.
    local function deadline(f, key)
        if redis.REDIS_VERSION_NUM then return f('PEXPIRETIME', key) end
        local function clock()
            local time = call('TIME')
            return time[1] * 1000 + math.floor(time[2] / 1000)
        end
        while true do
            local before, rest, after = clock(), f('PTTL', key), clock()
            if type(rest) ~= 'number' or rest < 0 then return rest end
            if before == after then return before + rest end
        end
    end
    --[[parts]]
    -- What would reach beyond the database, or all keys.
    local BEYOND = ' select move swapdb flushall flushdb migrate '
    local function beyond(f, a)
        return fail(f, 'ERR ' .. string.upper(a[1]) .. ' is not possible in a script of a pool: it reaches beyond its keys')
    end
    local function copy(f, a)
        for i = 4, #a do
            if string.upper(tostring(a[i])) == 'DB' then
                return fail(f, 'ERR COPY to another database is not possible in a script of a pool')
            end
        end
        return f(unpack(a))
    end
    local hows = {}
    local function find(name)
        local lower = type(name) == 'string' and string.lower(name)
        local how = lower and special[lower] or false
        if how and around then how = around(how, lower) end
        if lower == 'copy' then how = copy end
        if lower and string.find(BEYOND, ' ' .. lower .. ' ', 1, true) then how = beyond end
        if name ~= nil then hows[name] = how end
        return how
    end
    local function act(f, ...)
        if guard then
            local no = guard(...)
            if no then return fail(f, no) end
        end
        local name = ...
        local how = hows[name]
        if how == nil then how = find(name) end
        if how then
            local a = { ... }
            if select('#', ...) == #a then return how(f, a) end
        end
        return f(...)
    end
    local function run(f)
        return function(...)
            local name, key = ...
            local other = item and item(key)
            if other then return act(f, name, other, select(3, ...)) end
            return act(f, ...)
        end
    end
    fields_of_redis.call, fields_of_redis.pcall = run(call), run(redis.pcall)
    local visible = setmetatable({}, {
        __index = setmetatable(fields_of_redis, { __index = redis }),
        __newindex = function() error('Attempt to modify a readonly table', 2) end,
    })
    local function start(keys, args)
        for i = 1, #begin do begin[i](keys, args) end
    end
    return start, visible, my_math, my_tostring, my_os, done
end
