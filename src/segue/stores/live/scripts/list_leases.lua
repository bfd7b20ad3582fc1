-- Lists the nodes that have a lease. KEYS: index of leases, epoch, mark of a loss.
-- ARGV: what the key of a lease begins with (same slot). Returns the epoch, 1 if data was lost a moment ago, the leases.
local found = {}
for _, node in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  local lease = redis.call('HMGET', ARGV[1] .. node, 'node', 'token', 'address', 'started_at', 'draining', 'read_up_to')
  if lease[1] then
    table.insert(found, lease)
  end
end
return {redis.call('GET', KEYS[2]) or '', redis.call('EXISTS', KEYS[3]), found}
