-- Takes a lock, or returns who has it and the node of that. KEYS: lock.
-- ARGV: holder, node, milliseconds that it holds at most, the holder that is to be replaced ('').
local found = redis.call('HMGET', KEYS[1], 'holder', 'node')
if found[1] and found[1] ~= ARGV[1] and found[1] ~= ARGV[4] then
  return found
end
redis.call('HSET', KEYS[1], 'holder', ARGV[1], 'node', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return {}
