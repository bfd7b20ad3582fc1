-- Lets a node have so many places of each kind, in place of those that it had: as many as are left, and in any case
-- those that it uses. KEYS: for each kind, what each node has. ARGV: node, milliseconds that it has them; for each kind
-- how many it uses, how many it wants, how many there are. Returns for each kind how many it has, and all others have.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local told = {}
for number, key in ipairs(KEYS) do
  local at, others = 3 * number, 0
  local all = redis.call('HGETALL', key)
  for field = 1, #all, 2 do
    local count, ends_at = string.match(all[field + 1], '^(%d+):(%d+)$')
    if tonumber(ends_at) <= now then
      redis.call('HDEL', key, all[field])
    elseif all[field] ~= ARGV[1] then
      others = others + tonumber(count)
    end
  end
  local held = math.max(tonumber(ARGV[at]), math.min(tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]) - others))
  if held > 0 then
    redis.call('HSET', key, ARGV[1], string.format('%d:%d', held, now + ARGV[2]))
    redis.call('PEXPIRE', key, ARGV[2])
  else
    redis.call('HDEL', key, ARGV[1])
  end
  table.insert(told, {held, others})
end
return told
