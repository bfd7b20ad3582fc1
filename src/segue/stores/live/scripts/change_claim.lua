-- Changes a claim, if it is still that of a response. KEYS: claim. ARGV: response, what to do, milliseconds.
-- To forward it, it must have been only claimed. Returns whether it was changed.
local found = redis.call('HMGET', KEYS[1], 'response', 'state')
if found[1] ~= ARGV[1] then
  return 0
end
if ARGV[2] == 'release' then
  redis.call('DEL', KEYS[1])
elseif ARGV[2] == 'forward' then
  if found[2] ~= 'claimed' then
    return 0
  end
  redis.call('HSET', KEYS[1], 'state', 'forwarded')
else
  redis.call('HSET', KEYS[1], 'state', ARGV[2] == 'spend' and 'spent' or 'done')
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
end
return 1
