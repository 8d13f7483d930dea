#!lua
-- Puts one record at the log's end, or says why not. O(1) in data, O(chunks) PERSISTs.
-- Redis does not roll a script back, so every check comes before the first write.
--
-- KEYS  head log keys chunks [chunk of the payload …]
-- ARGV  mode       "first" begins the log, "next" goes on with it, "last" ends it
--       meta payload
--       identity   "" if nobody names the push
--       sequence
--       expected   the chain the log must have, "any" if it does not matter
--       remembered how many entries an idempotency key is known for
--       token nbytes  of the chunks, if there are any
--       deadline_ms   of "first": from when on no log may begin, because what was reserved may be wiped by then
local head, log, keys, chunks = unpack(KEYS, 1, 4)
local mode, meta, payload, identity, sequence, expected, remembered, token, nbytes, deadline_ms = unpack(ARGV)
local keyed = identity:sub(1, 2) == 'k:'
local count = #KEYS - 4

-- A worker's last sequence is a field of the head, beside what every commit reads and writes anyway.
local offset, chain, deleted, last = unpack(redis.call('HMGET', head, 'offset', 'chain', 'deleted', identity))
if mode == 'first' then
  if offset then return { 'moved' } end
  if redis.call('TIME')[1] * 1000 >= tonumber(deadline_ms) then return { 'late' } end
  offset, chain = '0', ''
elseif not offset or deleted then
  return { 'gone' }
end
local after = tonumber(offset) + 1

if keyed then
  local at = redis.call('ZSCORE', keys, identity)
  if at and tonumber(at) + tonumber(remembered) >= after then return { 'seen' } end
elseif identity ~= '' then
  last = tonumber(last or 0)
  if tonumber(sequence) <= last then return { 'seen' } end
  if tonumber(sequence) > last + 1 then return { 'gap', last + 1 } end
end
if expected ~= 'any' and expected ~= chain then return { 'moved' } end

if count > 0 then
  local there = 0
  for i = 5, #KEYS do there = there + redis.call('STRLEN', KEYS[i]) end
  if there ~= tonumber(nbytes) then return { 'expired' } end
end

local at = string.format('%.0f', after)
chain = redis.sha1hex(chain .. meta)
-- XADD goes first: it refuses an offset that is not the next one before anything else has changed.
if count > 0 then
  local group = token .. ':' .. count
  redis.call('XADD', log, at .. '-0', 'meta', meta, 'chain', chain, 'chunks', group, 'nbytes', nbytes)
  for i = 5, #KEYS do redis.call('PERSIST', KEYS[i]) end
  redis.call('ZADD', chunks, after - 1, group)
else
  redis.call('XADD', log, at .. '-0', 'meta', meta, 'chain', chain, 'payload', payload)
end
if identity ~= '' and not keyed then
  redis.call('HSET', head, 'offset', at, 'chain', chain, identity, sequence)
else
  redis.call('HSET', head, 'offset', at, 'chain', chain)
end
if mode == 'first' then redis.call('HSET', head, 'saved', 0) end
if mode == 'last' then redis.call('HSET', head, 'deleted', 1) end

if keyed then
  redis.call('ZADD', keys, at, identity)
  -- One key comes, two go at most: the table never grows past what is remembered.
  local oldest = '(' .. string.format('%.0f', after - tonumber(remembered))
  for _, past in ipairs(redis.call('ZRANGEBYSCORE', keys, '-inf', oldest, 'LIMIT', 0, 2)) do
    redis.call('ZREM', keys, past)
  end
end
return { 'appended', at, chain }
