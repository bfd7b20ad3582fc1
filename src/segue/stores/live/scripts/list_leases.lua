-- Lists the nodes that have a lease. KEYS: index of leases. ARGV: what the key of a lease begins with (same slot).
local found = {}
for _, node in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  local lease = redis.call('HMGET', ARGV[1] .. node, 'node', 'token', 'address', 'started_at', 'draining', 'read_up_to')
  if lease[1] then
    table.insert(found, lease)
  end
end
return found
