-- Closes slots on the shard that gives them away: no publish and no read passes from here on.
-- KEYS  1 fence
-- ARGV  1 version that the move makes   2.. slots
-- gives where the groups of each slot are: {{group, epoch, offset, dedupe bucket, group, …}, …}
-- A server that is full takes nothing that adds to it as a script's first write; and it is the full one that gives away.
redis.call('HDEL', KEYS[1], '')
local slots = {}
for i = 2, #ARGV do
  redis.call('HSET', KEYS[1], ARGV[i], -tonumber(ARGV[1]))
  local groups = {}
  for _, group in ipairs(redis.call('SMEMBERS', 'index:' .. ARGV[i])) do
    local meta = redis.call('HMGET', 'meta:' .. ARGV[i] .. ':' .. group, 'epoch', 'offset', 'seen')
    groups[#groups + 1] = group
    for field = 1, 3 do groups[#groups + 1] = meta[field] or '' end
  end
  slots[#slots + 1] = groups
end
return slots
