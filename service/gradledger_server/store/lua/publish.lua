#!lua
-- Makes a staged snapshot the published one, never backwards, and only if it is a state of this very log.
--
-- KEYS  head log snapshot chunks [chunk of the snapshot …]
-- ARGV  offset chain token meta_bytes nbytes digests
local head, log, snapshot, chunks = unpack(KEYS, 1, 4)
local offset, chain, token, meta_bytes, nbytes, digests = unpack(ARGV)
local count = #KEYS - 4

local saved, deleted = unpack(redis.call('HMGET', head, 'saved', 'deleted'))
if not saved or deleted then return { 'gone' } end
if tonumber(offset) <= tonumber(saved) then return { 'older' } end
local entry = redis.call('XRANGE', log, offset .. '-0', offset .. '-0')[1]
if not entry then return { 'moved' } end
for i = 1, #entry[2], 2 do
  if entry[2][i] == 'chain' and entry[2][i + 1] ~= chain then return { 'moved' } end
end
local there = 0
for i = 5, #KEYS do there = there + redis.call('STRLEN', KEYS[i]) end
if there ~= tonumber(nbytes) then return { 'expired' } end

for i = 5, #KEYS do redis.call('PERSIST', KEYS[i]) end
local group = token .. ':' .. count
redis.call('ZADD', chunks, offset, group)
redis.call('HSET', snapshot, 'offset', offset, 'chain', chain, 'chunks', group,
  'meta_bytes', meta_bytes, 'nbytes', nbytes, 'digests', digests)
redis.call('HSET', head, 'saved', offset)
return { 'published', tonumber(saved) }
