-- Appends a message to a group's log and sends it to everyone who listens: all of it, or nothing.
-- KEYS  1 fence: hash slot → version   2 meta: hash epoch, offset, swept, seen   3 log: stream   4 prefix of the dedupe hashes
--       5 index: set of the slot's groups
-- ARGV  1 slot   2 version under which the caller believes this shard owns it   3 session and id
--       4 what follows the offset in the message's frame   5 an epoch, for a log that has none yet   6 group
--       7 history, messages   8 history, ms   9 idle, ms: how long a group nobody touches is remembered
--       10 dedupe window, ms
-- gives {offset, epoch} of the message, also where it was here already; or {-1, version} where the fence is another
local fence = redis.call('HGET', KEYS[1], ARGV[1])
if fence ~= ARGV[2] then return { -1, tonumber(fence or '0') } end

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local window = tonumber(ARGV[10])
local bucket = math.floor(now / window)
local meta = redis.call('HMGET', KEYS[2], 'epoch', 'offset', 'swept', 'seen')
-- The clock of the shard that had this slot before may have been ahead: its last bucket is ours until we get there.
if tonumber(meta[4]) == bucket + 1 then bucket = bucket + 1 end
local seen = KEYS[4] .. bucket
local epoch, offset, swept = meta[1], tonumber(meta[2] or '0') + 1, tonumber(meta[3] or '0')
-- Nothing was published to this log yet, though a reader may have begun it.
local fresh = not meta[4]
-- A mark younger than the window is in this bucket or in the one before.
local first = redis.call('HGET', seen, ARGV[3]) or redis.call('HGET', KEYS[4] .. (bucket - 1), ARGV[3])
if first and not fresh then return { tonumber(first), epoch } end

if fresh then
  -- What an earlier log has left would not fit this one's offsets.
  redis.call('DEL', KEYS[3], seen, KEYS[4] .. (bucket - 1))
end
if not epoch then
  epoch = ARGV[5]
  redis.call('SADD', KEYS[5], ARGV[6])
  -- As in read.lua: an index forgets what has expired, also where groups are only published to.
  for _, group in ipairs(redis.call('SRANDMEMBER', KEYS[5], 2)) do
    local other = string.sub(KEYS[2], 1, -#ARGV[6] - 1) .. group
    if group ~= ARGV[6] and redis.call('EXISTS', other) == 0 then redis.call('SREM', KEYS[5], group) end
  end
end
redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[7], offset .. '-0', 't', now, 'm', ARGV[4])
redis.call('HSET', KEYS[2], 'epoch', epoch, 'offset', offset, 'seen', bucket)
redis.call('HSET', seen, ARGV[3], offset)

-- Each eighth of a history's age: what is too old goes, what is in use lives on. Halving the range finds where the
-- old ends in ten steps for 1,000 messages.
local age, idle = tonumber(ARGV[8]), tonumber(ARGV[9])
if now - swept > age / 8 then
  redis.call('HSET', KEYS[2], 'swept', now)
  redis.call('PEXPIRE', KEYS[2], math.max(idle, age * 2))
  redis.call('PEXPIRE', KEYS[3], math.floor(age * 1.25))
  redis.call('PEXPIRE', seen, window * 2)
  local low, high = tonumber(string.match(redis.call('XRANGE', KEYS[3], '-', '+', 'COUNT', 1)[1][1], '^%d+')), offset
  while low < high do
    local middle = math.floor((low + high) / 2)
    local entry = redis.call('XRANGE', KEYS[3], middle .. '-0', '+', 'COUNT', 1)[1]
    if tonumber(entry[2][2]) < now - age then low = middle + 1 else high = middle end
  end
  redis.call('XTRIM', KEYS[3], 'MINID', high .. '-0')
elseif redis.call('HLEN', seen) == 1 then
  redis.call('PEXPIRE', seen, window * 2)
end

redis.call('PUBLISH', ARGV[6], epoch .. ':' .. offset .. ':' .. now .. ARGV[4])
return { offset, epoch }
