#!lua
-- Gives a reserved epoch its name: "bound", "taken", or "late" if its time is up and it may be wiped already.
-- KEYS  names unbound
-- ARGV  name epoch
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 1 then return 'taken' end
local now = redis.call('TIME')
local deadline_ms = redis.call('ZSCORE', KEYS[2], ARGV[2])
if not deadline_ms or tonumber(deadline_ms) <= now[1] * 1000 then return 'late' end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('ZREM', KEYS[2], ARGV[2])
return 'bound'
