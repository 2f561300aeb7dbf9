-- In front of a library: while it is loaded only `register_function` is another one, which gives each function a name that
-- holds the library's digest, so that every version of a library has functions of its own. When a function is called,
-- `redis` and the rest become what its script would see.
local rf_native, rf_register = function() return redis, math, tostring end, redis.register_function
local redis, math, tostring, @OS@, rf_start, rf_done = {
    log = redis.log, LOG_DEBUG = redis.LOG_DEBUG, LOG_VERBOSE = redis.LOG_VERBOSE, LOG_NOTICE = redis.LOG_NOTICE,
    LOG_WARNING = redis.LOG_WARNING,
}
local function rf_wrap(callback)
    return function(keys, args)
        if not rf_start then rf_start, redis, math, tostring, @OS@, rf_done = rf_make(rf_native()) end
        rf_start(keys, args)
        if rf_done then return rf_done(callback, keys, args) end
        return callback(keys, args)
    end
end
redis.register_function = function(name, callback)
    if callback then return rf_register('@PREFIX@' .. name, rf_wrap(callback)) end
    return rf_register({
        function_name = '@PREFIX@' .. name.function_name, callback = rf_wrap(name.callback), flags = name.flags,
        description = name.description,
    })
end
