#!lua
-- Notes that an epoch is about to be written, unless its name is taken: "taken", or until when it may be begun,
-- in ms of this server's time.
-- KEYS  names unbound
-- ARGV  name epoch ttl_ms
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 1 then return 'taken' end
local now = redis.call('TIME')
local deadline_ms = now[1] * 1000 + ARGV[3]
redis.call('ZADD', KEYS[2], deadline_ms, ARGV[2])
return deadline_ms
