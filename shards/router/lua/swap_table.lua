-- Puts a new slot table in the place of the one the caller has read, or says which version is there.
-- KEYS  1 the table: a hash of version, table
-- ARGV  1 the version read (0: none yet)   2 the new version   3 the new table, JSON
-- gives {1, version read} where it was swapped, else {0, version found}
local found = tonumber(redis.call('HGET', KEYS[1], 'version') or '0')
if found ~= tonumber(ARGV[1]) then return { 0, found } end
redis.call('HSET', KEYS[1], 'version', ARGV[2], 'table', ARGV[3])
return { 1, found }
