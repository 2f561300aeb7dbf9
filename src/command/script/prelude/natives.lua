-- What of Lua comes from chance or a clock, for scripts that name it.
local function random(from, to)
    if from == nil then return chance() end
    if to == nil then from, to = 1, from end
    if from > to then error("bad argument #1 to 'random' (interval is empty)", 2) end
    return math.floor(from) + math.floor(chance() * (math.floor(to) - math.floor(from) + 1))
end
local function randomseed(n)
    if not now then read_moment() end
    seed = math.floor(n) % 2147483646 + 1
end
my_math = setmetatable({ random = random, randomseed = randomseed }, { __index = math })
my_tostring = function(value)
    local kind = type(value)
    if kind == 'table' or kind == 'function' or kind == 'thread' or kind == 'userdata' then return kind end
    return tostring(value)
end
my_os = {
    clock = function()
        if not now then read_moment() end
        return now / 1000
    end,
}
