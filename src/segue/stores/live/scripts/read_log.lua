-- Reads what follows a number. KEYS: log, its stream. ARGV: number, how many entries, 1 if the echo is wanted.
-- Returns state, node, address, shared, last number, latest event that shows the response, echo, entries; or nothing.
local found = redis.call('HMGET', KEYS[1], 'state', 'node', 'address', 'shared', 'last', 'latest')
if not found[1] then
  return {}
end
found[6] = found[6] or ''
found[7] = ARGV[3] == '1' and redis.call('HGET', KEYS[1], 'echo') or ''
found[8] = {}
if tonumber(ARGV[2]) > 0 then
  for _, entry in ipairs(redis.call('XRANGE', KEYS[2], '(' .. (ARGV[1] + 1) .. '-0', '+', 'COUNT', ARGV[2])) do
    table.insert(found[8], entry[2][2])
  end
end
return found
