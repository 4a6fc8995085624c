-- Reads the log after an offset.
-- KEYS: meta, log, latest (as in append.lua)
-- ARGV: epoch, offset, last offset to return, maximum entries, maximum bytes, '1' for only the latest event of each key
-- Returns: false if the log does not reach back to the offset, otherwise {offset, payload, offset, payload, ...}
local meta, log, latest = KEYS[1], KEYS[2], KEYS[3]
local epoch, after, last = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local max_entries, max_bytes, collapse = tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6] == '1'

local state = redis.call('HMGET', meta, 'epoch', 'top')
local top = tonumber(state[2] or 0)
if state[1] ~= epoch or after > top then return false end
if after == top then return {} end
local first = redis.call('XRANGE', log, '-', '+', 'COUNT', 1)[1]
if not first or tonumber(string.match(first[1], '^%d+')) > after + 1 then return false end

local offsets
if collapse then
  offsets = redis.call('ZRANGE', latest, '(' .. after, last, 'BYSCORE', 'LIMIT', 0, max_entries, 'WITHSCORES')
else
  offsets = {}
  for offset = after + 1, math.min(last, top, after + max_entries) do
    offsets[#offsets + 1] = ''
    offsets[#offsets + 1] = offset
  end
end

local result, bytes = {}, 0
for i = 2, #offsets, 2 do
  local id = string.format('%.0f-0', tonumber(offsets[i]))
  local entry = redis.call('XRANGE', log, id, id)[1]
  if not entry then return false end
  local payload = entry[2][2]
  bytes = bytes + #payload
  if bytes > max_bytes and #result > 0 then break end
  result[#result + 1] = tonumber(offsets[i])
  result[#result + 1] = payload
end
return result
