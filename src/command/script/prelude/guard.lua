-- A script may touch only keys that live with those it has declared: where a rule of the profile says the same of both; else with the
-- same hash tag, or, untagged, the same key.
-- Any other may be on other nodes, and is refused before the command is executed.
local tags
find = function() end
--@ each run
tags = nil
for i = 1, #keys do names[keys[i]] = keys[i] end
--@ when needed
local SPECS = '@SPECS@'
local finders = {}
-- What decides where a key lives. Must be what `ring::keyspace` says. The profile's rules come first; by some a key is not for scripts.
local function routing(key)
    local find = string.find
    local pin = string.match(key, '^rf@[0-9a-f][0-9a-f][0-9a-f][0-9a-f]')
    if pin then return pin end
    --[[rules]]
    local open = find(key, '{', 1, true)
    local close = open and find(key, '}', open + 1, true)
    if close and close > open + 1 then return string.sub(key, open + 1, close - 1) end
    return key
end
-- What is wrong with touching a key that was not declared, if anything.
local function refusal(key)
    if type(key) == 'number' then key = string.format('%.17g', key) end
    if type(key) ~= 'string' then return nil end
    if not tags then
        tags = {}
        for _, known in pairs(names) do
            local tag = routing(known)
            if tag then tags[tag] = true end
        end
    end
    local tag = routing(key)
    if names[key] == key or (tag and tags[tag]) then
        names[key] = key
        return nil
    end
    return "CROSSSLOT This script touches the key '" .. key .. "' without declaring it, and the pool may keep it on other "
        .. "nodes than the declared keys: pass it as one of KEYS, or give all keys of the script the same {hash tag}, or a route in the profile"
end
local function check(a, from, to, step)
    for i = from, to, step do
        local key = a[i + 1]
        if key ~= nil and names[key] ~= key then
            local no = refusal(key)
            if no then return no end
        end
    end
end
local function range(a, first, last, step, limit)
    local n = #a
    if last >= 0 then return check(a, first, math.min(first + last, n - 1), step) end
    if limit > 1 then return check(a, first, first + math.floor((n - first) / limit) + last, step) end
    return check(a, first, n + last, step)
end
local function keyword(a, word, from)
    local first, last, step = from, #a - 2, 1
    if from < 0 then first, last, step = #a + from, 2, -1 end
    for i = first, last, step do
        if string.upper(tostring(a[i + 1])) == word then return i + 1 end
    end
end
-- `SORT`: its key, the key after `STORE`, and those that the patterns stand for.
local function sort(a)
    local no, i = check(a, 1, 1, 1), 3
    while not no and a[i + 1] do
        local word = string.upper(tostring(a[i]))
        if word == 'LIMIT' then
            i = i + 2
        elseif word == 'STORE' then
            no, i = check(a, i, i, 1), i + 1
        elseif word == 'BY' or word == 'GET' then
            i = i + 1
            local pattern = tostring(a[i])
            if string.find(pattern, '*', 1, true) then no = refusal(pattern) end
        end
        i = i + 1
    end
    return no
end
local function finder(name)
    local _, stop = string.find(SPECS, ' ' .. string.lower(name) .. '=', 1, true)
    if not stop then return false end
    local spec = string.match(SPECS, '^%S*', stop + 1)
    if spec == '1' then return 1 end
    if spec == '*' then
        return function()
            return 'ERR ' .. string.upper(name) .. ' is not possible in a script of a pool: the nodes that execute the script do '
                .. 'not have all keys'
        end
    end
    if spec == 's' then return sort end
    local rules = {}
    for rule in string.gmatch(spec, '[^;]+') do
        local kind, numbers = string.sub(rule, 1, 1), {}
        local word, rest = string.match(rule, '^.([A-Z]*)(.*)')
        for number in string.gmatch(rest, '-?%d+') do numbers[#numbers + 1] = tonumber(number) end
        rules[#rules + 1] = { kind, word, unpack(numbers) }
    end
    return function(a)
        for i = 1, #rules do
            local rule, no = rules[i], nil
            if rule[1] == 'r' then
                no = range(a, rule[3], rule[4], rule[5], rule[6])
            elseif rule[1] == 'k' then
                local first = keyword(a, rule[2], rule[3])
                no = first and range(a, first, rule[4], rule[5], rule[6])
            else
                local count = tonumber(a[rule[3] + 1]) or 0
                no = check(a, rule[4], rule[4] + (count - 1) * rule[5], rule[5])
            end
            if no then return no end
        end
    end
end
guard = function(name, key, ...)
    local how = finders[name]
    if how == nil then
        if type(name) ~= 'string' then return nil end
        how = finder(name)
        finders[name] = how
    end
    if not how then return nil end
    if how ~= 1 then return how({ name, key, ... }) end
    if key ~= nil and names[key] ~= key then return refusal(key) end
end
