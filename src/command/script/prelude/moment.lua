-- The run's last argument is the pool's time in ms, which is the same for all nodes, with a number by chance. Most runs do not look at it.
local moment, now, seed
local function read_moment()
    local ms, number = string.match(moment, '^(%d+):(%d+)$')
    now, seed = tonumber(ms), tonumber(number) % 2147483646 + 1
end
--@ each run
moment, now = args[#args], nil
args[#args] = nil
if consider then read_moment() end
--@ when needed
if not now then read_moment() end
