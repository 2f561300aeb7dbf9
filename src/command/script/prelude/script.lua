local redis, math, tostring, @OS@, rf_done = (function(redis, math, tostring)
    local start, mine, my_math, my_tostring, my_os, done = rf_make(redis, math, tostring)
    start(KEYS, ARGV)
    return mine, my_math, my_tostring, my_os, done
end)(redis, math, tostring)
