-- Adds events to a log as one entry, and ends it if it is told to. The id of an entry is one more than the number of
-- its last event, so that one that was added before is known.
-- KEYS: log, its stream, index of logs, sizes.
-- ARGV: response, token, number of the first event, of the last, the events, their echo (''), the latest that shows the
-- response (''), bytes that a log may have, bytes that all logs of the tenant may have, milliseconds that it is kept,
-- 1 if it ends, what the keys of a log and of a stream begin with.
-- Without a token, the log is that of a node that is gone.
-- Returns added, known, fenced (another node has ended it, or has it) or gone.
local found = redis.call('HMGET', KEYS[1], 'state', 'token', 'last')
if not found[1] then
  return 'gone'
end
if found[1] ~= 'running' or (ARGV[2] ~= '' and found[2] ~= ARGV[2]) then
  return 'fenced'
end
if ARGV[2] == '' and tonumber(ARGV[4]) <= tonumber(found[3]) then
  return 'known'  -- its node, which was taken for dead, has written more: who ends the log looks at it again
end
local result = 'known'
if ARGV[5] ~= '' and tonumber(ARGV[4]) > tonumber(found[3]) then
  result = 'added'
  if tonumber(ARGV[3]) > tonumber(found[3]) + 1 then
    redis.call('DEL', KEYS[2])  -- some are missing: what was before cannot be followed any more
  end
  redis.call('XADD', KEYS[2], (ARGV[4] + 1) .. '-0', 'e', ARGV[5])
  redis.call('HSET', KEYS[1], 'last', ARGV[4])
  local size = #ARGV[5] + #ARGV[6]
  if ARGV[6] ~= '' then
    redis.call('HSET', KEYS[1], 'echo', ARGV[6])
  end
  if ARGV[7] ~= '' then
    redis.call('HSET', KEYS[1], 'latest', ARGV[7])
  end
  local log_bytes = redis.call('HINCRBY', KEYS[4], ARGV[1], size)
  while log_bytes > tonumber(ARGV[8]) and redis.call('XLEN', KEYS[2]) > 1 do
    local oldest = redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', 1)[1]
    redis.call('XDEL', KEYS[2], oldest[1])
    log_bytes = redis.call('HINCRBY', KEYS[4], ARGV[1], -#oldest[2][2])
    size = size - #oldest[2][2]
  end
  local all = redis.call('HINCRBY', KEYS[4], 'all', size)
  if all > tonumber(ARGV[9]) then
    for _, other in ipairs(redis.call('ZRANGE', KEYS[3], 0, 20)) do
      if all > tonumber(ARGV[9]) and other ~= ARGV[1] and redis.call('HGET', ARGV[12] .. other, 'state') ~= 'running' then
        redis.call('DEL', ARGV[12] .. other, ARGV[13] .. other)
        all = redis.call('HINCRBY', KEYS[4], 'all', -tonumber(redis.call('HGET', KEYS[4], other) or '0'))
        redis.call('HDEL', KEYS[4], other)
        redis.call('ZREM', KEYS[3], other)
      end
    end
  end
end
local time = redis.call('TIME')
redis.call('ZADD', KEYS[3], time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[10], ARGV[1])
if ARGV[11] == '1' then
  redis.call('HSET', KEYS[1], 'state', 'ended')
end
for _, key in ipairs({KEYS[1], KEYS[2]}) do
  redis.call('PEXPIRE', key, ARGV[10])
end
for _, key in ipairs({KEYS[3], KEYS[4]}) do
  if redis.call('PTTL', key) < tonumber(ARGV[10]) then
    redis.call('PEXPIRE', key, ARGV[10])
  end
end
return result
