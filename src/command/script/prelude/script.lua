local rf_start, redis, math, tostring, @OS@, rf_done = rf_make(redis, math, tostring)
rf_start(KEYS, ARGV)
rf_start = nil
