-- Reads a group's log after a place, or its end, oldest first, and says where its head is. Makes the group known if it
-- is not, so that who subscribes before the first message has a place to come back to.
-- KEYS  1 fence   2 meta   3 log   4 index: set of the slot's groups
-- ARGV  1 slot   2 version   3 an epoch, for a log that has none yet   4 group
--       5 offset after which to read; below 0: the last ones, so many   6 most messages to give   7 idle, ms
--       8 most bytes of bodies to give; one message is always given, so that a reader gets on
-- gives {head, epoch, {{offset, ms, body}, …}}, or {-1, version} where the fence is another
local fence = redis.call('HGET', KEYS[1], ARGV[1])
if fence ~= ARGV[2] then return { -1, tonumber(fence or '0') } end

local meta = redis.call('HMGET', KEYS[2], 'epoch', 'offset')
local epoch, head = meta[1], tonumber(meta[2] or '0')
if not epoch then
  epoch = ARGV[3]
  redis.call('DEL', KEYS[3])
  redis.call('HSET', KEYS[2], 'epoch', epoch, 'offset', '0')
  redis.call('SADD', KEYS[4], ARGV[4])
  -- An index forgets what has expired: two looks for each group that comes keep it within twice the living ones.
  for _, group in ipairs(redis.call('SRANDMEMBER', KEYS[4], 2)) do
    local other = string.sub(KEYS[2], 1, -#ARGV[4] - 1) .. group
    if redis.call('EXISTS', other) == 0 then redis.call('SREM', KEYS[4], group) end
  end
end
if redis.call('PTTL', KEYS[2]) < tonumber(ARGV[7]) then redis.call('PEXPIRE', KEYS[2], ARGV[7]) end

local after, most, room = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[8])
local range, from, to, step = 'XRANGE', after + 1, '+', 1
if after < 0 then
  most, range, from, to, step = math.min(-after, most), 'XREVRANGE', head, '-', -1
end

-- A few at a time, since large ones are not worth fetching beyond what there is room for.
local messages, few = {}, 20
local function fetch()
  while from > 0 and from <= head and #messages < most do
    local entries = redis.call(range, KEYS[3], from .. '-0', to, 'COUNT', math.min(few, most - #messages))
    if #entries == 0 then return end
    for _, entry in ipairs(entries) do
      room = room - #entry[2][4]
      if room < 0 and #messages > 0 then return end
      local offset = tonumber(string.match(entry[1], '^%d+'))
      messages[#messages + 1] = { offset, tonumber(entry[2][2]), entry[2][4] }
      from = offset + step
    end
  end
end

fetch()
if step < 0 then
  for i = 1, math.floor(#messages / 2) do
    messages[i], messages[#messages + 1 - i] = messages[#messages + 1 - i], messages[i]
  end
end
return { head, epoch, messages }
