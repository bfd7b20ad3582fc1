-- Takes units out of the windows of a tenant, by the generic cell rate algorithm: kept is when each is full again.
-- KEYS: windows. ARGV, for each window: its name, units, units per minute, the least milliseconds until it is full.
-- Returns for each the milliseconds until it is full.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local told, longest = {}, 0
for at = 1, #ARGV, 4 do
  local full_at = tonumber(redis.call('HGET', KEYS[1], ARGV[at]) or '0')
  full_at = math.max(full_at, now + tonumber(ARGV[at + 3])) + tonumber(ARGV[at + 1]) * 60000 / tonumber(ARGV[at + 2])
  redis.call('HSET', KEYS[1], ARGV[at], string.format('%.3f', full_at))
  longest = math.max(longest, full_at - now)
  table.insert(told, string.format('%.3f', full_at - now))
end
local keep_ms = math.floor(longest) + 60000
if redis.call('PTTL', KEYS[1]) < keep_ms then  -- another window may be full only later
  redis.call('PEXPIRE', KEYS[1], keep_ms)
end
return told
