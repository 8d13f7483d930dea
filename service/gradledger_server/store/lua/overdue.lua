#!lua flags=allow-oom
-- The epochs that somebody began to create or delete and never finished. Claims them: none can be bound any more.
-- KEYS  unbound
local now = redis.call('TIME')
local overdue = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now[1] * 1000, 'LIMIT', 0, 100)
for _, epoch in ipairs(overdue) do redis.call('ZADD', KEYS[1], 0, epoch) end
return overdue
