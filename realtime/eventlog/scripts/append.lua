-- Numbers events, adds them to the log and publishes them, in one atomic step. Without events, returns the position.
-- KEYS: meta (hash: epoch, run_id, top, bytes), log (stream), latest (zset: key -> offset), versions (hash: key -> version)
-- ARGV: new epoch, maximum entries, maximum bytes, channel, then per event: key, version, head, tail of the payload
-- Returns: epoch, top, then per event its offset, or 0 if the log already has this version or a later one
local meta, log, latest, versions = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local max_entries, max_bytes, channel = tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]

-- A restarted server may have lost the last events and would reuse their offsets: start a new epoch.
local run_id = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
local state = redis.call('HMGET', meta, 'epoch', 'run_id', 'top', 'bytes')
local epoch, top, bytes = state[1], tonumber(state[3]), tonumber(state[4])
if not epoch or state[2] ~= run_id then
  epoch, top, bytes = ARGV[1], 0, 0
  redis.call('DEL', log, latest, versions)
  redis.call('HSET', meta, 'epoch', epoch, 'run_id', run_id, 'top', 0, 'bytes', 0)
end

-- Trim before adding: when its memory is full, Redis allows commands that free memory and rejects those that add data.
local count = redis.call('XLEN', log)
local function trim(entries, size)
  while count > 0 and (count + entries > max_entries or bytes + size > max_bytes) do
    local oldest = redis.call('XRANGE', log, '-', '+', 'COUNT', 1)[1]
    redis.call('XDEL', log, oldest[1])
    count, bytes = count - 1, bytes - #oldest[2][2]
  end
end

local result = {epoch, top}
for i = 5, #ARGV, 4 do
  local key, version = ARGV[i], tonumber(ARGV[i + 1])
  local known_version = tonumber(redis.call('HGET', versions, key) or 0)
  if known_version >= version then
    result[#result + 1] = 0
  else
    local payload = ARGV[i + 2] .. epoch .. ':' .. (top + 1) .. ARGV[i + 3]
    trim(1, #payload)
    -- Store the offset first: if a command below fails, no other event may get the same offset.
    top, count, bytes = top + 1, count + 1, bytes + #payload
    redis.call('HSET', meta, 'top', top, 'bytes', bytes)
    redis.call('XADD', log, top .. '-0', 'e', payload)
    redis.call('ZADD', latest, top, key)
    redis.call('HSET', versions, key, version)
    redis.call('PUBLISH', channel, payload)
    result[#result + 1] = top
  end
end

-- Remove the index entries of events that are no longer in the log, in batches of limited size.
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
