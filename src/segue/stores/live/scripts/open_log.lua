-- Begins a log, unless there is one; returns 1 if there was none. KEYS: log, index of logs, sizes.
-- ARGV: response, node, token, address, 1 if its events are shared, milliseconds that it is kept.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for _, gone in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', string.format('%d', now), 'LIMIT', 0, 100)) do
  redis.call('HINCRBY', KEYS[3], 'all', -tonumber(redis.call('HGET', KEYS[3], gone) or '0'))
  redis.call('HDEL', KEYS[3], gone)
  redis.call('ZREM', KEYS[2], gone)
end
redis.call('ZADD', KEYS[2], now + ARGV[6], ARGV[1])
for _, key in ipairs({KEYS[2], KEYS[3]}) do
  redis.call('PEXPIRE', key, ARGV[6])
end
local begun = 1 - redis.call('EXISTS', KEYS[1])
if begun == 1 then
  redis.call('HSET', KEYS[1], 'state', 'running', 'node', ARGV[2], 'token', ARGV[3], 'address', ARGV[4],
    'shared', ARGV[5], 'last', '-1')
end
redis.call('PEXPIRE', KEYS[1], ARGV[6])
return begun
