-- What a consumer can have at once: its own leases start anew, due delayed orders go back to the stream,
-- then orders of dead consumers, then new ones.
-- KEYS: stream, delayed set. ARGV: group, consumer, max, lease ms, cursor of the scan for dead consumers.
-- Answers a flat list: cursor, ms until the next delayed order is due ('' for none), then id, deliveries,
-- earlier attempts and order of each.
local stream, delayed = KEYS[1], KEYS[2]
local group, consumer, max, lease, cursor = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[5]
local HELD_MAX, MOVED_MAX, ROUNDS_MAX = 1000, 1000, 16

local held = redis.call('XPENDING', stream, group, '-', '+', HELD_MAX, consumer)
for _, entry in ipairs(held) do
  redis.call('XCLAIM', stream, group, consumer, 0, entry[1], 'JUSTID')
end

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local due = redis.call('ZRANGEBYSCORE', delayed, '-inf', now, 'LIMIT', 0, MOVED_MAX)
for _, member in ipairs(due) do
  local attempt, order = string.match(member, '^(%d+) (.*)$')
  redis.call('XADD', stream, '*', 'attempt', attempt or '0', 'order', order or member)
  redis.call('ZREM', delayed, member)
end

local found, count = {}, 0
local function take(id, deliveries, fields)
  local attempt, order = '', ''
  for i = 1, #fields, 2 do
    if fields[i] == 'attempt' then attempt = fields[i + 1] end
    if fields[i] == 'order' then order = fields[i + 1] end
  end
  for _, value in ipairs({ id, tostring(deliveries), attempt, order }) do
    found[#found + 1] = value
  end
  count = count + 1
end

for _ = 1, ROUNDS_MAX do
  if count >= max then break end
  local answer = redis.call('XAUTOCLAIM', stream, group, consumer, lease, cursor, 'COUNT', max - count)
  cursor = answer[1]
  for _, entry in ipairs(answer[2]) do
    if entry and entry[2] then
      local pending = redis.call('XPENDING', stream, group, entry[1], entry[1], 1)
      take(entry[1], pending[1] and pending[1][4] or 1, entry[2])
    end
  end
  if cursor == '0-0' then break end
end

if count < max then
  local answer = redis.call('XREADGROUP', 'GROUP', group, consumer, 'COUNT', max - count, 'STREAMS', stream, '>')
  if answer then
    for _, entry in ipairs(answer[1][2]) do take(entry[1], 1, entry[2]) end
  end
end

local wait = ''
local first = redis.call('ZRANGE', delayed, 0, 0, 'WITHSCORES')
if first[2] then wait = string.format('%d', math.max(0, tonumber(first[2]) - now)) end
local answer = { cursor, wait }
for _, value in ipairs(found) do answer[#answer + 1] = value end
return answer
