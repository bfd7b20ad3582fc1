-- Ends the lease of a node, if it is still its own. KEYS: lease, index of leases. ARGV: node, token.
if redis.call('HGET', KEYS[1], 'token') == ARGV[2] then
  redis.call('DEL', KEYS[1])
  redis.call('ZREM', KEYS[2], ARGV[1])
end
return 1
