-- Renews the lease of a node, or gives it a new one, with a token that is higher than any before.
-- KEYS: lease, index of leases, last token, epoch, mark of a loss, number of the last notice. ARGV: node, its token (0: none), address, began at,
-- draining, read up to, milliseconds of the lease, an epoch if there is none, milliseconds that the token is kept, the
-- epoch that the node knows (''). If that was lost, or there is no epoch, as after a loss that no node has noticed yet,
-- other nodes may count on leases that are not there: the mark says so for as long as they can.
-- Returns the token and the epoch.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local epoch = redis.call('GET', KEYS[4])
local lost = not epoch or (ARGV[10] ~= '' and ARGV[10] ~= epoch)
if not epoch then
  epoch = ARGV[8]
  redis.call('SET', KEYS[4], epoch)
end
redis.call('PEXPIRE', KEYS[4], ARGV[9])
redis.call('PEXPIRE', KEYS[6], ARGV[9]) -- or the next notice would be number 1 again, as if others had been missed
if lost then
  redis.call('SET', KEYS[5], '1', 'PX', ARGV[7])
end
local token = redis.call('HGET', KEYS[1], 'token')
if not token or token ~= ARGV[2] then
  local last = tonumber(redis.call('GET', KEYS[3]) or '0')
  token = string.format('%d', math.max(last + 1, now))
  redis.call('SET', KEYS[3], token)
end
redis.call('PEXPIRE', KEYS[3], ARGV[9])
redis.call('HSET', KEYS[1], 'node', ARGV[1], 'token', token, 'address', ARGV[3], 'started_at', ARGV[4],
  'draining', ARGV[5], 'read_up_to', ARGV[6])
redis.call('PEXPIRE', KEYS[1], ARGV[7])
redis.call('ZADD', KEYS[2], now + ARGV[7], ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', '(' .. string.format('%d', now))
redis.call('PEXPIRE', KEYS[2], ARGV[9])
return {token, epoch}
