-- Numbers events, keeps them in the log and publishes them, all in one step. Without events: tells the position.
-- KEYS: meta (hash: epoch, run_id, top, bytes), log (stream), latest (zset: key -> offset), versions (hash: key -> version)
-- ARGV: a fresh epoch, entries to keep, bytes to keep, channel, then per event: key, version, head, tail of the payload
-- Returns: epoch, top, then per event its offset, or 0 when the log already holds this version or a later one
local meta, log, latest, versions = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local keep, keep_bytes, channel = tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]

-- A server that came back may have lost its tail and would give the same offsets to other events: a new epoch.
local run_id = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
local known = redis.call('HMGET', meta, 'epoch', 'run_id', 'top', 'bytes')
local epoch, top, bytes = known[1], tonumber(known[3]), tonumber(known[4])
if not epoch or known[2] ~= run_id then
  epoch, top, bytes = ARGV[1], 0, 0
  redis.call('DEL', log, latest, versions)
  redis.call('HSET', meta, 'epoch', epoch, 'run_id', run_id, 'top', 0, 'bytes', 0)
end

-- Makes room first: what frees memory is allowed even when Redis is full, what adds is not.
local count = redis.call('XLEN', log)
local function trim(entries, size)
  while count > 0 and (count + entries > keep or bytes + size > keep_bytes) do
    local oldest = redis.call('XRANGE', log, '-', '+', 'COUNT', 1)[1]
    redis.call('XDEL', log, oldest[1])
    count, bytes = count - 1, bytes - #oldest[2][2]
  end
end

local result = {epoch, top}
for i = 5, #ARGV, 4 do
  local key, version = ARGV[i], tonumber(ARGV[i + 1])
  local before = tonumber(redis.call('HGET', versions, key) or 0)
  if before >= version then
    result[#result + 1] = 0
  else
    local payload = ARGV[i + 2] .. epoch .. ':' .. (top + 1) .. ARGV[i + 3]
    trim(1, #payload)
    -- The number is used up first: whatever fails below must not give it to another event.
    top, count, bytes = top + 1, count + 1, bytes + #payload
    redis.call('HSET', meta, 'top', top, 'bytes', bytes)
    redis.call('XADD', log, top .. '-0', 'e', payload)
    redis.call('ZADD', latest, top, key)
    redis.call('HSET', versions, key, version)
    redis.call('PUBLISH', channel, payload)
    result[#result + 1] = top
  end
end

if #ARGV > 4 then
  result[2] = top
  local first = redis.call('XRANGE', log, '-', '+', 'COUNT', 1)[1]
  local bound = first and string.match(first[1], '^%d+') or top + 1
  local stale = redis.call('ZRANGE', latest, '-inf', '(' .. bound, 'BYSCORE', 'LIMIT', 0, 500)
  if #stale > 0 then
    redis.call('ZREM', latest, unpack(stale))
    redis.call('HDEL', versions, unpack(stale))
  end
end
return result
