-- Closes slots on the shard that gives them away: no publish and no read passes from here on.
-- KEYS  1 fence
-- ARGV  1 version that the move makes   2.. slots
-- gives the groups of each slot: {{group, …}, …}
local groups = {}
for i = 2, #ARGV do
  redis.call('HSET', KEYS[1], ARGV[i], -tonumber(ARGV[1]))
  groups[#groups + 1] = redis.call('SMEMBERS', 'index:' .. ARGV[i])
end
return groups
