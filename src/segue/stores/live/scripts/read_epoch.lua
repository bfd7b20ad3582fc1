-- Returns the epoch, false if there is none. KEYS: epoch.
return redis.call('GET', KEYS[1])
