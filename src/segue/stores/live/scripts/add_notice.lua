-- Adds a notice for all nodes. Its number shows each reader whether it has missed one.
-- KEYS: stream of notices, last number. ARGV: node that tells, notice, how many are kept, milliseconds that they are, and
-- that the number is.
-- Returns the id of the notice.
local number = redis.call('INCR', KEYS[2])
redis.call('PEXPIRE', KEYS[2], ARGV[5])
local id = redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[3], '*', 'from', ARGV[1], 'number', number, 'notice', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return id
