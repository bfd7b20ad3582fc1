-- Claims an exchange of a sidecar; returns the node that has it. KEYS: claim. ARGV: node, milliseconds that it holds.
local owner = redis.call('GET', KEYS[1])
if owner then
  return owner
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return ARGV[1]
