#!lua flags=allow-oom
-- Removes a dead letter and records why.
-- KEYS: 1 dead, 2 letters, 3 outcomes, 4 later   ARGV: 1 entry, 2 delivery's id, 3 outcome, 4 event's ms   -> 1, or 0 when it is gone
if #redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1]) == 0 then return 0 end
local outcome = redis.call('XADD', KEYS[3], '*', 'o', ARGV[3])
redis.call('ZADD', KEYS[4], ARGV[4], ARGV[4] .. ':' .. outcome)
redis.call('XDEL', KEYS[1], ARGV[1])
redis.call('ZREM', KEYS[2], ARGV[2])
return 1
