-- What a key is, in a few bytes that are the same wherever it is the same: type, deadline, and a digest of the value.
-- ARGV[1]: most elements that are looked at; ARGV[2]: most bytes of a string.
local key = KEYS[1]
local elements_max, bytes_max = tonumber(ARGV[1]), tonumber(ARGV[2])
local kind = redis.call('TYPE', key).ok
if kind == 'none' then return 'none' end
-- Before Redis 7.0 it is to be computed: from a moment in which the clock has not gone on.
local function deadline()
  local at = redis.pcall('PEXPIRETIME', key)
  if type(at) == 'number' then return at end
  local function now()
    local time = redis.call('TIME')
    return time[1] * 1000 + math.floor(time[2] / 1000)
  end
  for _ = 1, 100 do
    local before, left, after = now(), redis.call('PTTL', key), now()
    if left < 0 then return left end
    if before == after then return before + left end
  end
  return 'unknown'
end
local head = kind .. ':' .. deadline() .. ':'
local lengths = { string = 'STRLEN', list = 'LLEN', hash = 'HLEN', set = 'SCARD', zset = 'ZCARD', stream = 'XLEN' }
if not lengths[kind] then return 'skipped:' .. head end
local length = redis.call(lengths[kind], key)
head = head .. length .. ':'
if length > (kind == 'string' and bytes_max or elements_max) then return 'skipped:' .. head end
local function chain(items)
  local digest = ''
  local part = {}
  for i, item in ipairs(items) do
    part[#part + 1] = #item .. ':' .. item
    if #part == 200 or i == #items then
      digest = redis.sha1hex(digest .. table.concat(part))
      part = {}
    end
  end
  return digest
end
-- The same in whatever order: a sum of digests, in two halves that stay exact.
local function sum(items, together)
  local a, b = 0, 0
  for i = 1, #items, together do
    local item = items[i]
    if together == 2 then item = #item .. ':' .. item .. items[i + 1] end
    local digest = redis.sha1hex(item)
    a = (a + tonumber(string.sub(digest, 1, 12), 16)) % 281474976710656
    b = (b + tonumber(string.sub(digest, 13, 24), 16)) % 281474976710656
  end
  return string.format('%.0f-%.0f', a, b)
end
local function words(reply, out)
  for _, item in ipairs(reply) do
    if type(item) == 'table' then words(item, out) else out[#out + 1] = tostring(item) end
  end
  return out
end
if kind == 'string' then
  return head .. redis.sha1hex(redis.call('GET', key))
elseif kind == 'list' then
  return head .. chain(redis.call('LRANGE', key, 0, -1))
elseif kind == 'hash' then
  return head .. sum(redis.call('HGETALL', key), 2)
elseif kind == 'set' then
  return head .. sum(redis.call('SMEMBERS', key), 1)
elseif kind == 'zset' then
  return head .. chain(redis.call('ZRANGE', key, 0, -1, 'WITHSCORES'))
end
local digest = chain(words(redis.call('XRANGE', key, '-', '+'), {}))
for _, group in ipairs(redis.call('XINFO', 'GROUPS', key)) do
  local name, last = '', ''
  for i = 1, #group, 2 do
    if group[i] == 'name' then name = group[i + 1] elseif group[i] == 'last-delivered-id' then last = group[i + 1] end
  end
  local pending = redis.call('XPENDING', key, name, '-', '+', elements_max)
  local owners = {}
  for _, entry in ipairs(pending) do
    -- Not for how long it has been so: that goes on while one looks.
    owners[#owners + 1] = entry[1] .. entry[2] .. entry[4]
  end
  digest = redis.sha1hex(digest .. name .. last .. chain(owners))
end
return head .. digest
