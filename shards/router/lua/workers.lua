-- What the workers that live have said of themselves.
-- KEYS  1 a hash by worker's name   2 seen: sorted set name → ms
-- ARGV  1 ms until a worker counts as dead
-- gives {value, …}
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local alive = redis.call('ZRANGEBYSCORE', KEYS[2], now - tonumber(ARGV[1]), '+inf')
if #alive == 0 then return {} end
return redis.call('HMGET', KEYS[1], unpack(alive))
