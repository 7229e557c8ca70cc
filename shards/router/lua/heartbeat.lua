-- A worker says that it lives and how it does; it learns what it should be doing.
-- KEYS  1 workers: hash name → record   2 seen: sorted set name → ms   3 metrics: hash name → samples
--       4 the slot table   5 orders: hash replica or color → JSON   6 events: stream
-- ARGV  1 the worker's name   2 its record, JSON   3 its samples   4 its replica   5 its color
--       6 ms until it counts as dead   7 events that are kept
-- gives {version of the slot table, orders for the replica, else for the color, or ''}
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function tell(worker, what)
  redis.call('XADD', KEYS[6], 'MAXLEN', ARGV[7], '*', 'kind', 'worker', 'text', worker .. ' ' .. what)
end
for _, dead in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now - tonumber(ARGV[6]))) do
  redis.call('HDEL', KEYS[1], dead)
  redis.call('HDEL', KEYS[3], dead)
  redis.call('ZREM', KEYS[2], dead)
  tell(dead, 'is gone without a word')
end
if redis.call('HSET', KEYS[1], ARGV[1], ARGV[2]) == 1 then tell(ARGV[1], 'came') end
redis.call('HSET', KEYS[3], ARGV[1], ARGV[3])
redis.call('ZADD', KEYS[2], now, ARGV[1])
local orders = redis.call('HMGET', KEYS[5], ARGV[4], ARGV[5])
return { tonumber(redis.call('HGET', KEYS[4], 'version') or '0'), orders[1] or orders[2] or '' }
