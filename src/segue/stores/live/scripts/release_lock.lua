-- Releases a lock, if it is still that of a holder. KEYS: lock. ARGV: holder.
if redis.call('HGET', KEYS[1], 'holder') == ARGV[1] then
  return redis.call('DEL', KEYS[1])
end
return 0
