-- Deletes a slot's groups from a shard that does not own it; its fence stays as it is.
-- KEYS  1 index: set of the slot's groups
-- ARGV  1 slot
-- gives how many groups there were
local groups = redis.call('SMEMBERS', KEYS[1])
for _, group in ipairs(groups) do
  local name = ARGV[1] .. ':' .. group
  local bucket = redis.call('HGET', 'meta:' .. name, 'seen')
  redis.call('UNLINK', 'meta:' .. name, 'log:' .. name, 'presence:' .. name)
  if bucket then redis.call('UNLINK', 'seen:' .. name .. ':' .. (bucket - 1), 'seen:' .. name .. ':' .. bucket) end
end
redis.call('UNLINK', KEYS[1])
return #groups
