-- Items, called by bare ids, live with the queue that the script is executed on: under a name that says its partition.
-- One that is about to expire counts as expired, by the pool's time, and is removed: else a node that executes the script a moment
-- later would find it gone, and another one not.
local EARLY_MS = 200
local pin, names = nil, {}
begin[#begin + 1] = function(keys)
    pin, names = type(keys[1]) == 'string' and string.match(keys[1], '^rf@%x%x%x%x'), {}
end
local ID = '^%x%x%x%x%x%x%x%x%-%x%x%x%x%-%x%x%x%x%-%x%x%x%x%-%x%x%x%x%x%x%x%x%x%x%x%x$'
local function settle(name)
    local at = deadline(redis.pcall, name)
    if type(at) == 'number' and at > 0 and at <= now + EARLY_MS then redis.pcall('DEL', name) end
end
-- What the nodes call a key, if it is an item.
item = function(key)
    local name = names[key]
    if name or not pin then return name end
    if type(key) == 'string' and #key == 36 and string.find(key, ID) then
        name = pin .. ':' .. key
        names[key] = name
        if allow then allow(name) end
        if now then settle(name) end
        return name
    end
end
