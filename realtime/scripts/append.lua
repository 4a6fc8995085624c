-- Numbers events, keeps them in the log and publishes them, all in one step. Without events: tells the position.
-- KEYS: meta (hash: epoch, run_id, top), log (stream), latest (zset: key -> offset), versions (hash: key -> version)
-- ARGV: a fresh epoch, entries to keep, channel, then per event: key, version, head, tail of the payload
-- Returns: epoch, top, then per event its offset, or 0 when the log already holds this version or a later one
local meta, log, latest, versions = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local keep, channel = tonumber(ARGV[2]), ARGV[3]

-- A server that came back may have lost its tail and would give the same offsets to other events: a new epoch.
local run_id = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
local known = redis.call('HMGET', meta, 'epoch', 'run_id', 'top')
local epoch, top = known[1], tonumber(known[3])
if not epoch or known[2] ~= run_id then
  epoch, top = ARGV[1], 0
  redis.call('DEL', log, latest, versions)
  redis.call('HSET', meta, 'epoch', epoch, 'run_id', run_id, 'top', 0)
end

local result = {epoch, top}
for i = 4, #ARGV, 4 do
  local key, version = ARGV[i], tonumber(ARGV[i + 1])
  local before = tonumber(redis.call('HGET', versions, key) or 0)
  if before >= version then
    result[#result + 1] = 0
  else
    top = top + 1
    local payload = ARGV[i + 2] .. epoch .. ':' .. top .. ARGV[i + 3]
    redis.call('XADD', log, 'MAXLEN', '~', keep, top .. '-0', 'e', payload)
    redis.call('ZADD', latest, top, key)
    redis.call('HSET', versions, key, version)
    redis.call('PUBLISH', channel, payload)
    result[#result + 1] = top
  end
end

if #ARGV > 3 then
  redis.call('HSET', meta, 'top', top)
  result[2] = top
  -- The log is trimmed by whole nodes, so the index keeps a little more than it may need.
  local stale = redis.call('ZRANGE', latest, '-inf', '(' .. (top - 2 * keep), 'BYSCORE', 'LIMIT', 0, 200)
  if #stale > 0 then
    redis.call('ZREM', latest, unpack(stale))
    redis.call('HDEL', versions, unpack(stale))
  end
end
return result
