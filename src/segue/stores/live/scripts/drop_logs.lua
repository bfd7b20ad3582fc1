-- Drops logs of a tenant: one, or all if none is named. KEYS: index of logs, sizes.
-- ARGV: response (''), what the keys of a log and of a stream begin with. Returns how many there were.
local dropped = 0
for _, response in ipairs(ARGV[1] ~= '' and {ARGV[1]} or redis.call('ZRANGE', KEYS[1], 0, -1)) do
  dropped = dropped + redis.call('DEL', ARGV[2] .. response)
  redis.call('DEL', ARGV[3] .. response)
  redis.call('ZREM', KEYS[1], response)
  local size = redis.call('HGET', KEYS[2], response)
  if size then
    redis.call('HINCRBY', KEYS[2], 'all', -tonumber(size))
    redis.call('HDEL', KEYS[2], response)
  end
end
return dropped
