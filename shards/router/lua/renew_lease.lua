-- Holds the lease for another while, or gives it back, where nobody has taken it since; one that ran out is had again.
-- KEYS  1 the lease   2 the fence: the latest number
-- ARGV  1 who has it   2 ms it shall be good for; 0: it is given back   3 its number
-- gives 1, or 0 where somebody else has taken it
if redis.call('GET', KEYS[2]) ~= ARGV[3] then return 0 end
if ARGV[2] == '0' then
  redis.call('DEL', KEYS[1])
else
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
end
return 1
