-- Takes the lease where nobody has it, or one who is dead, and gives it a number higher than all before.
-- KEYS  1 the lease: who has it; it expires   2 the fence: the latest number
-- ARGV  1 who asks   2 ms it is good for   3 a holder who is known to be dead, or ''
-- gives {number, ''}, or {0, who has it}
local held = redis.call('GET', KEYS[1])
if held and held ~= ARGV[3] and held ~= ARGV[1] then return { 0, held } end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return { redis.call('INCR', KEYS[2]), '' }
