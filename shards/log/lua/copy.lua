-- Gives the commands that make groups elsewhere what they are here: whole, or what has come since an earlier copy.
-- ARGV  for each group: slot, group, and where the copy there is: epoch, offset, dedupe bucket, or '' three times
-- gives for each group {epoch, offset, dedupe bucket, {command, …}}, or nothing for one that has expired
local function restore(commands, key)
  local dump, ttl = redis.call('DUMP', key), redis.call('PTTL', key)
  if ttl == 0 then ttl = 1 end -- RESTORE takes 0 for ever
  if dump then commands[#commands + 1] = { 'RESTORE', key, math.max(0, ttl), dump, 'REPLACE' } end
end

local function append(commands, key, after)
  for _, entry in ipairs(redis.call('XRANGE', key, (after + 1) .. '-0', '+')) do
    commands[#commands + 1] = { 'XADD', key, entry[1], unpack(entry[2]) }
  end
  local ttl = redis.call('PTTL', key)
  if ttl > 0 then commands[#commands + 1] = { 'PEXPIRE', key, ttl } end
end

local groups = {}
for i = 1, #ARGV, 5 do
  local slot, group, epoch, offset, bucket = unpack(ARGV, i, i + 4)
  local name = slot .. ':' .. group
  local meta = redis.call('HMGET', 'meta:' .. name, 'epoch', 'offset', 'seen')
  local commands = {}
  if meta[1] then
    commands[1] = { 'SADD', 'index:' .. slot, group }
    restore(commands, 'meta:' .. name)
    if meta[1] == epoch then append(commands, 'log:' .. name, tonumber(offset)) else restore(commands, 'log:' .. name) end
    if meta[3] then
      -- Nobody writes into the bucket before the last any more.
      if meta[3] ~= bucket then restore(commands, 'seen:' .. name .. ':' .. (meta[3] - 1)) end
      restore(commands, 'seen:' .. name .. ':' .. meta[3])
    end
    groups[#groups + 1] = { meta[1], meta[2], meta[3] or '', commands }
  else
    groups[#groups + 1] = {}
  end
end
return groups
