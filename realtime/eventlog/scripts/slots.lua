-- Acquires, renews or releases slots, which expire unless they are renewed. Times are those of the Redis server's clock.
-- KEYS: per slot, the sorted set that it belongs to (holder -> expiry time)
-- ARGV: action ("take", "keep" or "leave"), maximum slots per set, seconds until a slot expires, then per slot its holder
-- Returns: per slot 1, or 0 if the set has no free slot
local action, max_slots, seconds = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local results = {}
for i, key in ipairs(KEYS) do
    local holder = ARGV[i + 3]
    results[i] = 1
    redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
    if action == 'leave' then
        redis.call('ZREM', key, holder)
    elseif action == 'keep' or redis.call('ZCARD', key) < max_slots then
        redis.call('ZADD', key, now + seconds, holder)
        redis.call('EXPIRE', key, math.ceil(seconds))
    else
        results[i] = 0
    end
end
return results
