-- Claims an idempotency key, or returns who has it. KEYS: claim, index of claims.
-- ARGV: response, digest, node, token, milliseconds that it holds, the response whose claim is to be taken over (''),
-- 1 if the create says that it is a repeat.
-- Only a claim whose turn was not forwarded is taken over. One that is spent holds for repeats of the same request.
local found = redis.call('HMGET', KEYS[1], 'response', 'digest', 'node', 'state')
local is_free = not found[1]
if found[4] == 'claimed' then
  is_free = found[1] == ARGV[6]
elseif found[4] == 'spent' then
  is_free = ARGV[7] ~= '1' or found[2] ~= ARGV[2]
end
if not is_free then
  return found
end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'response', ARGV[1], 'digest', ARGV[2], 'node', ARGV[3], 'token', ARGV[4], 'state', 'claimed')
redis.call('PEXPIRE', KEYS[1], ARGV[5])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', string.format('%d', now))
redis.call('ZADD', KEYS[2], now + ARGV[5], KEYS[1])
redis.call('PEXPIRE', KEYS[2], ARGV[5])
return {}
