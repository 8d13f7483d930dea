#!lua
-- Notes that an epoch is about to be written, unless its name is taken: "taken" or "reserved".
-- KEYS  names unbound
-- ARGV  name epoch ttl_ms
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 1 then return 'taken' end
local now = redis.call('TIME')
redis.call('ZADD', KEYS[2], now[1] * 1000 + ARGV[3], ARGV[2])
return 'reserved'
