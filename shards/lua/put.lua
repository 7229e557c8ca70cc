-- Puts a message into each of some mailboxes that has room; what has expired makes room.
-- KEYS  mailboxes: lists of expiry in ms ':' message, oldest first
-- ARGV  1 the message   2 ms until it expires   3.. how many messages may wait in each mailbox
-- gives {{1, or 0 where it is full, how many had expired}, …}
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local entry = string.format('%.0f', now + tonumber(ARGV[2])) .. ':' .. ARGV[1]

local function put(mailbox, capacity)
  local expired = 0
  while redis.call('LLEN', mailbox) >= capacity do
    local oldest = redis.call('LINDEX', mailbox, 0)
    if not oldest or tonumber(string.match(oldest, '^%d+')) > now then return { 0, expired } end
    redis.call('LPOP', mailbox)
    expired = expired + 1
  end
  redis.call('RPUSH', mailbox, entry)
  redis.call('PEXPIRE', mailbox, ARGV[2])
  return { 1, expired }
end

local answers = {}
for i, mailbox in ipairs(KEYS) do answers[i] = put(mailbox, tonumber(ARGV[i + 2])) end
return answers
