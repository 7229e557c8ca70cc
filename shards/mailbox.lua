-- Puts a message into a mailbox that has room; what has expired makes room.
-- KEYS  1 the mailbox: a list of expiry in ms ':' message, oldest first
-- ARGV  1 the message   2 how many messages may wait   3 ms until this one expires
-- gives 1, or 0 where it is full
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
while redis.call('LLEN', KEYS[1]) >= tonumber(ARGV[2]) do
  local oldest = redis.call('LINDEX', KEYS[1], 0)
  if tonumber(string.match(oldest, '^%d+')) > now then return 0 end
  redis.call('LPOP', KEYS[1])
end
redis.call('RPUSH', KEYS[1], string.format('%.0f', now + tonumber(ARGV[3])) .. ':' .. ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
