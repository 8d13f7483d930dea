#!lua flags=allow-oom
-- Marks a log as ended, so that nothing is appended or published while its keys are wiped.
-- KEYS  head
if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('HSET', KEYS[1], 'deleted', 1) end
return 1
