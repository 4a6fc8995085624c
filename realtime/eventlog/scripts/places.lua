-- Places that are held for a while. KEYS: the set that each is in. ARGV: what becomes of them ("take", "keep", "leave"),
-- how many a set has, the seconds that one is held for, then the holder of each.
-- Answers with 1 for each, and 0 for one that is not free. Times are of this server's clock.
local act, most, seconds = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local answers = {}
for i, key in ipairs(KEYS) do
    local holder = ARGV[i + 3]
    answers[i] = 1
    redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
    if act == 'leave' then
        redis.call('ZREM', key, holder)
    elseif act == 'keep' or redis.call('ZCARD', key) < most then
        redis.call('ZADD', key, now + seconds, holder)
        redis.call('EXPIRE', key, math.ceil(seconds))
    else
        answers[i] = 0
    end
end
return answers
