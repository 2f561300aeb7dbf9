-- Items, called by bare ids, live with the queue that the script is executed on: under a name that says its partition.
local pin = nil
begin[#begin + 1] = function(keys)
    pin = type(keys[1]) == 'string' and string.match(keys[1], '^rf@%x%x%x%x')
end
local ID = '^%x%x%x%x%x%x%x%x%-%x%x%x%x%-%x%x%x%x%-%x%x%x%x%-%x%x%x%x%x%x%x%x%x%x%x%x$'
-- What the nodes call a key, if it is an item.
item = function(key)
    if pin and type(key) == 'string' and #key == 36 and string.find(key, ID) then return pin .. ':' .. key end
end
