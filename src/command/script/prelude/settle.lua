local at = deadline(redis.pcall, name)
if not now then read_moment() end
if type(at) == 'number' and at > 0 and at <= now + EARLY_MS then redis.pcall('DEL', name) end
