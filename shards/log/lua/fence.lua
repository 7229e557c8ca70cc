-- Opens slots that this shard owns under a version, unless a newer owner or a newer move has closed them.
-- KEYS  1 fence: hash slot → version; below 0: closed by the move that makes this version
-- ARGV  slot, version, slot, version, …
redis.call('HDEL', KEYS[1], '') -- as in close.lua
for i = 1, #ARGV, 2 do
  local found = math.abs(tonumber(redis.call('HGET', KEYS[1], ARGV[i]) or '0'))
  if found <= tonumber(ARGV[i + 1]) then redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
end
return 1
