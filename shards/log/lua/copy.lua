-- Gives the commands that make groups elsewhere what they are here: whole, or what has come since an earlier copy.
-- ARGV  1 'dump', or 'plain' where the server there does not know our dumps, being older
--       2.. for each group: slot, group, and where the copy there is: epoch, offset, dedupe bucket, or '' three times
-- gives for each group {epoch, offset, dedupe bucket, {command, …}}, or nothing for one that has expired
local fill = {}

function fill.hash(commands, key)
  local fields = redis.call('HGETALL', key)
  for i = 1, #fields, 1000 do
    commands[#commands + 1] = { 'HSET', key, unpack(fields, i, math.min(i + 999, #fields)) }
  end
end

function fill.stream(commands, key)
  for _, entry in ipairs(redis.call('XRANGE', key, '-', '+')) do
    commands[#commands + 1] = { 'XADD', key, entry[1], unpack(entry[2]) }
  end
end

local function restore(commands, key)
  if ARGV[1] == 'plain' then
    commands[#commands + 1] = { 'DEL', key }
    local kind = redis.call('TYPE', key).ok
    if fill[kind] then
      fill[kind](commands, key)
      local ttl = redis.call('PTTL', key)
      if ttl >= 0 then commands[#commands + 1] = { 'PEXPIRE', key, math.max(1, ttl) } end
    end
    return
  end
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
for i = 2, #ARGV, 5 do
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
