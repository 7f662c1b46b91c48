-- Ends a claim, if it is held still.
-- KEYS: stream, delayed set, dead stream.
-- ARGV: group, id, consumer, deliveries, verdict, order, then
--   done: nothing; retry: attempts so far, delay ms, bound; bury: reason, bound.
-- Answers 1 when it was settled, 0 when the claim is not held any more, 2 when it was to be retried and the
-- delayed set is full.
local stream, delayed, dead = KEYS[1], KEYS[2], KEYS[3]
local group, id, verdict, order = ARGV[1], ARGV[2], ARGV[5], ARGV[6]
local pending = redis.pcall('XPENDING', stream, group, id, id, 1)
if pending.err then
  -- An emptied database: nobody holds anything.
  if string.find(pending.err, 'NOGROUP', 1, true) then return 0 end
  return pending
end
local claim = pending[1]
if not claim or claim[2] ~= ARGV[3] or tostring(claim[4]) ~= ARGV[4] then return 0 end
redis.call('XACK', stream, group, id)
redis.call('XDEL', stream, id)
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if verdict == 'retry' then
  if redis.call('ZCARD', delayed) >= tonumber(ARGV[9]) then return 2 end
  redis.call('ZADD', delayed, now + tonumber(ARGV[8]), ARGV[7] .. ' ' .. order)
elseif verdict == 'bury' then
  redis.call('XADD', dead, 'MAXLEN', ARGV[8], '*', 'order', order, 'reason', ARGV[7], 'at_ms', string.format('%d', now))
end
return 1
