#!lua flags=allow-oom
-- Frees a name if it is still this epoch's, and leaves the epoch to be wiped: 1 if so.
-- KEYS  names unbound
-- ARGV  name epoch
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('ZADD', KEYS[2], 0, ARGV[2])
redis.call('HDEL', KEYS[1], ARGV[1])
return 1
