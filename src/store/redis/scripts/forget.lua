#!lua flags=allow-oom
-- Removes a dead process's heartbeat, unless it beat again.   KEYS: 1 processes   ARGV: 1 name, 2 the beat seen
if redis.call('HGET', KEYS[1], ARGV[1]) == ARGV[2] then return redis.call('HDEL', KEYS[1], ARGV[1]) end
return 0
