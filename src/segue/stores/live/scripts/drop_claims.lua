-- Drops all claims of a tenant. KEYS: index of claims; they are in the same slot.
for _, key in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  redis.call('DEL', key)
end
return redis.call('DEL', KEYS[1])
