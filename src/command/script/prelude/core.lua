-- Stands between a script and `redis`: makes the `redis` (and whatever else is to be another one) that the script sees.
-- A script has it made anew for each run, and mostly calls plain commands with keys that are known. So little is made at once, and the rest
-- when a call is to be looked at closer. Each part has three sections: what is made at once, what each run begins with, what is made then.
-- A part sets what it needs: `find` says what the nodes call a key, if that can be said at once; of a closer look, `guard` says what is wrong
-- with a command before anything else does, `special` has what stands in a command's place, and `around` makes of that what is executed.
-- `done` gets a run's result.
-- Whole-line comments only: the lines are joined into one, so that line numbers in the script's errors stay right.
local function rf_make(redis, math, tostring)
    local call, done = redis.call, nil
    -- What the nodes call a key, of those that are known.
    local names
    local find = function(key) return key end
    -- Commands, as the script writes them, that nothing stands in place of, and whose only key is the first argument.
    local PLAIN = { --[[plain]] }
    -- Looks closer at a call.
    local consider
    -- What of `redis` itself is to be another one.
    local fields_of_redis = { set_repl = function() end }
    -- Whatever else may come from chance, or a clock, as the script sees it.
    local my_math, my_tostring, my_os = math, tostring, nil
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
    --[[at once]]
    local function start(keys, args)
        names = {}
        --[[each run]]
    end
    local function make()
        local guard, special, around = nil, {}, nil
        -- Before Redis 7.0 an error must be a text.
        local function fail(f, text)
            return f == call and error(redis.REDIS_VERSION_NUM and { err = text } or text, 0) or { err = text }
        end
        --[[when needed]]
        -- What would reach beyond the database, or all keys.
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
        local function choose(name)
            local lower = type(name) == 'string' and string.lower(name)
            local how = lower and special[lower] or false
            if how and around then how = around(how, lower) end
            if lower == 'copy' then how = copy end
            if lower and string.find(' @BEYOND@ ', ' ' .. lower .. ' ', 1, true) then how = beyond end
            if name ~= nil then hows[name] = how end
            return how
        end
        return function(f, ...)
            if guard then
                local no = guard(...)
                if no then return fail(f, no) end
            end
            local name = ...
            local how = hows[name]
            if how == nil then how = choose(name) end
            if how then
                local a = { ... }
                if select('#', ...) == #a then return how(f, a) end
            end
            return f(...)
        end
    end
    local function run(f)
        return function(...)
            local name, key = ...
            local called = names[key] or find(key)
            if not called or not PLAIN[name] then
                consider = consider or make()
                if not called or called == key then return consider(f, ...) end
                return consider(f, name, called, select(3, ...))
            end
            if called == key then return f(...) end
            return f(name, called, select(3, ...))
        end
    end
    fields_of_redis.call, fields_of_redis.pcall = run(call), run(redis.pcall)
    local visible = setmetatable({}, {
        __index = setmetatable(fields_of_redis, { __index = redis }),
        __newindex = function() error('Attempt to modify a readonly table', 2) end,
    })
    return start, visible, my_math, my_tostring, my_os, done
end
