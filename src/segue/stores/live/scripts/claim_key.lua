-- Claims an idempotency key, or returns who has it. KEYS: claim, index of claims.
-- ARGV: response, digest, node, token, milliseconds that it holds, the response whose claim is to be taken over ('').
-- Only a claim whose turn was not forwarded is taken over.
local found = redis.call('HMGET', KEYS[1], 'response', 'digest', 'node', 'state')
if found[1] and not (found[1] == ARGV[6] and found[4] == 'claimed') then
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
