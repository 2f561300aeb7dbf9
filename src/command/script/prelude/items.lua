-- Items, called by bare ids, live with the queue that the script is executed on: under a name that says its partition.
-- One that is about to expire counts as expired, by the pool's time, and is removed: else a node that executes the script a moment
-- later would find it gone, and another one not.
local EARLY_MS = 200
local ID = '^%x%x%x%x%x%x%x%x%-%x%x%x%x%-%x%x%x%x%-%x%x%x%x%-%x%x%x%x%x%x%x%x%x%x%x%x$'
local pin
local other = find
find = function(key)
    if not pin or type(key) ~= 'string' or #key ~= 36 or not string.find(key, ID) then return other(key) end
    local name = pin .. ':' .. key
    names[key] = name
    --[[settle]]
    return name
end
--@ each run
pin = type(keys[1]) == 'string' and string.match(keys[1], '^rf@%x%x%x%x')
for i = 1, #keys do if pin and #keys[i] == 36 and string.find(keys[i], ID) then names[keys[i]] = nil end end
