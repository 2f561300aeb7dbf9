-- Messages are published by the sidecar, to which subscribers are connected, once the script's effect is safe: the result
-- becomes `{result, {command, channel, message, …}}`.
local messages
done = function(body, ...)
    local ok, result = pcall(body, ...)
    if not ok then
        -- What Redis makes of it: errors with a code of their own keep it.
        if type(result) == 'table' then result = result.err end
        result = tostring(result)
        if not string.match(result, '^%u+ ') then result = 'ERR ' .. result end
        result = { err = result }
        if #messages == 0 then error(result, 0) end
    end
    if result == nil then result = false end
    return { result, messages }
end
--@ each run
messages = {}
--@ when needed
local function publish(f, a)
    if #a ~= 3 then return f(unpack(a)) end
    for i = 1, 3 do
        local word = a[i]
        if type(word) == 'number' then word = string.format('%.17g', word) end
        if type(word) ~= 'string' then return f(unpack(a)) end
        messages[#messages + 1] = word
    end
    return 0
end
special.publish, special.spublish = publish, publish
