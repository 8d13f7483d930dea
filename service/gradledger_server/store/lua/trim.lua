#!lua flags=allow-oom
-- Lets go of entries up to an offset, and of rows of chunks, that this server's own snapshot has made needless.
-- Behind a failover this server may have an older one than was published elsewhere, and then nothing happens.
--
-- KEYS  head log chunks [chunk of the rows …]
-- ARGV  upto [row of chunks …]
local head, log, chunks = unpack(KEYS, 1, 3)
local saved, upto = tonumber(redis.call('HGET', head, 'saved') or 0), tonumber(ARGV[1])
if saved < upto then return 'other' end
redis.call('XTRIM', log, 'MINID', string.format('%.0f-0', upto + 1))
for i = 4, #KEYS do redis.call('UNLINK', KEYS[i]) end
for i = 2, #ARGV do redis.call('ZREM', chunks, ARGV[i]) end
return 'trimmed'
