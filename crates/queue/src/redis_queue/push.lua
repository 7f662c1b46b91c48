-- Adds an order. KEYS: stream. ARGV: order, bound.
-- Answers how many old entries the bound has cut off.
local before = redis.call('XLEN', KEYS[1])
redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[2], '*', 'attempt', '0', 'order', ARGV[1])
return before + 1 - redis.call('XLEN', KEYS[1])
